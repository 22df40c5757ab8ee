"""The lake: Delta tables of what went through the log, each record exactly once.

A commit holds the rows of a stretch of the log and, as Delta application transactions, the offsets
to go on from: both or neither. So the table itself says where its writer goes on, and two writers
of one partition conflict. Rows are written off the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import pyarrow.dataset as ds
import structlog
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from rankstream.adapters.kafka import Record
from rankstream.adapters.log_range import PartitionLog
from rankstream.errors import DependencyUnavailable, Fenced
from services.features.lake_rows import PARTITION_BY, TICK, LakeTable
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from services.features.worker import RETRY_S, Delivery, drain

CHECKPOINT_EVERY: Final = 100


def app_id(topic: str, partition: int) -> str:
    """Name of a partition's writer in the table's transactions."""
    return f"lake:{topic}:{partition}"


class DeltaLog:
    """One Delta table and the offsets that its versions hold. Blocking: call it in a thread."""

    def __init__(self, folder: str, table: LakeTable) -> None:
        self._path = Path(folder) / table.topic
        self._of = table

    def open(self, partitions: Sequence[int]) -> dict[int, int]:
        """Create the table if it is missing; offset to go on from by partition."""
        self._path.mkdir(parents=True, exist_ok=True)
        self._table = DeltaTable.create(
            str(self._path),
            schema=self._of.schema,
            mode="ignore",
            partition_by=list(PARTITION_BY),
            name=self._of.topic,
            configuration={"delta.checkpointInterval": str(CHECKPOINT_EVERY)},
        )
        self._table.update_incremental()
        return {
            partition: self._table.transaction_version(app_id(self._of.topic, partition)) or 0
            for partition in partitions
        }

    def rows(self) -> int:
        """Rows of the current version, ticks aside."""
        data = self._table.to_pyarrow_dataset()
        if "kind" in data.schema.names:
            return int(data.count_rows(filter=ds.field("kind") != TICK))
        return int(data.count_rows())

    def append(
        self, records: Sequence[Record], before: Mapping[int, int], after: Mapping[int, int]
    ) -> tuple[int, int]:
        """Commit rows of `records` if the table stands at `before`; it stands at `after` then.

        Returns: rows written, ticks aside, and records skipped because they cannot be decoded.
        Raises:
            Fenced: another writer has moved one of these partitions; nothing is committed.
            DependencyUnavailable: the folder cannot be written; nothing is committed.
        """
        rows = self._of.rows_of(records)
        self._table.update_incremental()
        for partition, offset in before.items():
            found = self._table.transaction_version(app_id(self._of.topic, partition)) or 0
            if found != offset:
                raise self._fenced(f"partition {partition} is at {found}, expected {offset}")
        transactions = [
            Transaction(app_id(self._of.topic, partition), offset)
            for partition, offset in after.items()
        ]
        try:
            write_deltalake(
                self._table,
                rows.table,
                mode="append",
                commit_properties=CommitProperties(app_transactions=transactions),
            )
        except CommitFailedError as error:
            raise self._fenced(str(error)) from None
        except (OSError, DeltaError) as error:
            raise DependencyUnavailable(
                f"dependency_unavailable: lake table {self._path}: {error}."
                " Nothing is committed. Free space or mend the folder."
            ) from None
        ticks = 0
        if "kind" in rows.table.schema.names:
            ticks = sum(kind == TICK for kind in rows.table["kind"].to_pylist())
        return rows.table.num_rows - ticks, rows.skipped

    def _fenced(self, why: str) -> Fenced:
        return Fenced(
            f"fenced: lake table {self._path}: {why}. Nothing is committed."
            " Another worker owns the partition: stop."
        )


class LakeWorker:
    """Appends our partitions of one topic to its table while `run` runs."""

    def __init__(
        self,
        table: LakeTable,
        partitions: Sequence[int],
        settings: FeaturesSettings,
        measures: Measures,
    ) -> None:
        self.topic = table.topic
        self.caught_up = False
        self.rows = 0
        self._partitions = tuple(partitions)
        self._settings = settings
        self._measures = measures
        self._delta = DeltaLog(settings.lake, table)
        self._inbox: asyncio.Queue[Delivery] = asyncio.Queue(settings.inbox_records)
        self._buffer: list[Record] = []
        self._buffered_bytes = 0
        self._unacked: list[Delivery] = []
        self._committed: dict[int, int] = {}
        self._position: dict[int, int] = {}
        self._flush_due_s = 0.0
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger().bind(stage="lake", table=table.topic)

    async def put(self, delivery: Delivery) -> None:
        """Hand over a record; waits while the inbox is full. A stopped worker takes none."""
        if not self._stopping.is_set():
            await self._inbox.put(delivery)

    def stop(self) -> None:
        """Have `run` end after a last flush."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; an outage is waited out.

        Raises: Fenced if another worker writes our partitions; Conflict if the log is cut.
        """
        try:
            while not self._stopping.is_set():
                try:
                    await self._open()
                    await self._consume()
                except DependencyUnavailable as error:
                    self.caught_up = False
                    self._log.warning("lake_interrupted", reason=str(error))
                    await asyncio.sleep(RETRY_S)
        finally:
            self.caught_up = False
            drain(self._stopping, self._inbox)

    async def _open(self) -> None:
        self._committed = await asyncio.to_thread(self._delta.open, self._partitions)
        self.rows = await asyncio.to_thread(self._delta.rows)
        self._position = dict(self._committed)
        self._buffer, self._buffered_bytes = [], 0
        for partition in self._partitions:
            await self._read_up_to(partition, None)
        await self._flush()
        self.caught_up = True

    async def _read_up_to(self, partition: int, end: int | None) -> None:
        url = self._settings.kafka_url
        source = PartitionLog(url, self.topic, partition, client_id="features-lake")
        async with aclosing(source.read(self._position[partition], end)) as portions:
            async for records in portions:
                for record in records:
                    await self._add(record)
        if end is not None:
            self._position[partition] = end

    async def _add(self, record: Record) -> None:
        self._buffer.append(record)
        self._buffered_bytes += len(record.value or b"")
        self._position[record.partition] = record.offset + 1
        if self._buffered_bytes >= self._settings.lake_flush_bytes:
            await self._flush()

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            wait_s = max(0.0, self._flush_due_s - time.monotonic())
            for delivery in await self._take(wait_s):
                self._unacked.append(delivery)
                record = delivery.record
                position = self._position[record.partition]
                if record.offset > position:
                    await self._read_up_to(record.partition, record.offset)
                if record.offset >= position:
                    await self._add(record)
            if time.monotonic() >= self._flush_due_s:
                await self._flush()
        await self._flush()

    async def _take(self, wait_s: float) -> list[Delivery]:
        getting = asyncio.create_task(self._inbox.get())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                (getting, stopping), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            stopping.cancel()
            if not getting.done():
                getting.cancel()
        if not getting.done() or getting.cancelled():
            return []
        taken = [getting.result()]
        while not self._inbox.empty():
            taken.append(self._inbox.get_nowait())
        return taken

    async def _flush(self) -> None:
        """Commit what is buffered; then Faust may commit its offsets."""
        if self._buffer:
            moved = {p: o for p, o in self._position.items() if o != self._committed[p]}
            before = {partition: self._committed[partition] for partition in moved}
            started_s = time.perf_counter()
            rows, skipped = await asyncio.to_thread(self._delta.append, self._buffer, before, moved)
            seconds = time.perf_counter() - started_s
            self._measures.lake_flush_seconds.labels(self.topic).observe(seconds)
            self._measures.lake_rows.labels(self.topic).inc(rows)
            self._measures.lake_skipped.labels(self.topic).inc(skipped)
            self.rows += rows
            self._committed |= moved
            self._buffer, self._buffered_bytes = [], 0
        for delivery in self._unacked:
            delivery.ack()
        self._unacked.clear()
        self._flush_due_s = time.monotonic() + self._settings.lake_flush_s
