"""The lake: Delta tables of what went through the log, each record exactly once.

A worker goes on where its table says (`lake_delta`), and never where Kafka's group does. The rows
are made and written by a process of their own (`lake_process`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from rankstream import topics
from rankstream.adapters.log_reader import LogReader
from rankstream.contracts.record import Record
from rankstream.errors import DependencyUnavailable
from services.features.lake_process import LakeProcess
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from services.features.worker import RETRY_S

# Each has a table of its name.
TABLES: Final = (topics.EVENTS.name, topics.LABELS.name, topics.SERVED.name)
POLL_RECORDS: Final = 5_000
POLL_TIMEOUT_S: Final = 0.5
GATHER_MS: Final = 500
COMPACT_EVERY: Final = 100  # commits


class LakeWorker:
    """Appends our partitions of one topic to its table while `run` runs."""

    def __init__(
        self,
        topic: str,
        partitions: Sequence[int],
        process: LakeProcess,
        settings: FeaturesSettings,
        measures: Measures,
    ) -> None:
        self.topic = topic
        self.caught_up = False
        self.rows = 0
        self._partitions = tuple(partitions)
        self._settings = settings
        self._measures = measures
        self._process = process
        self._buffer: list[Record] = []
        self._buffered_bytes = 0
        self.committed: dict[int, int] = {}  # partition -> offset behind what the table has
        self._position: dict[int, int] = {}
        self._flush_due_s = 0.0
        self._commits = 0
        self._reader: LogReader | None = None
        self._stopping = asyncio.Event()
        self._log = structlog.get_logger().bind(stage="lake", table=topic)

    def lag(self) -> int:
        """Records in the log, as far as is known, that are not in the table yet."""
        behind = 0 if self._reader is None else sum(self._reader.lag().values())
        return behind + len(self._buffer)

    def stop(self) -> None:
        """Have `run` end after a last flush."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; an outage is waited out.

        Raises:
            Fenced: another worker writes our partitions.
            Conflict: the log is cut, or the table is another than ours.
        """
        while not self._stopping.is_set():
            try:
                await self._work()
            except DependencyUnavailable as error:
                self._log.warning("lake_interrupted", reason=str(error))
                await asyncio.sleep(RETRY_S)
            finally:
                self.caught_up = False

    async def _work(self) -> None:
        self.committed = await self._process.call(self.topic, "open", self._partitions)
        self.rows = await self._process.call(self.topic, "rows")
        self._position = dict(self.committed)
        self._buffer, self._buffered_bytes = [], 0
        self._reader = reader = LogReader(
            self._settings.kafka_url,
            [self.topic],
            offsets={(self.topic, partition): at for partition, at in self.committed.items()},
            partitions=self._partitions,
            client_id="features-lake",
            gather_ms=GATHER_MS,
        )
        try:
            while not self._stopping.is_set():
                self._add(await reader.poll(POLL_RECORDS, POLL_TIMEOUT_S))
                if self._is_due() or (reader.caught_up and not self.caught_up):
                    await self._flush()
                    self.caught_up = reader.caught_up
            await self._flush()
        finally:
            self._reader = None
            await reader.close()

    def _add(self, records: Sequence[Record]) -> None:
        for record in records:
            self._buffer.append(record)
            self._buffered_bytes += len(record.value or b"")
            self._position[record.partition] = record.offset + 1

    def _is_due(self) -> bool:
        full = self._buffered_bytes >= self._settings.lake_flush_bytes
        return full or time.monotonic() >= self._flush_due_s

    async def _flush(self) -> None:
        """Commit what is buffered."""
        if self._buffer:
            moved = {p: o for p, o in self._position.items() if o != self.committed[p]}
            before = {partition: self.committed[partition] for partition in moved}
            started_s = time.perf_counter()
            rows, skipped = await self._process.call(
                self.topic, "append", self._buffer, before, moved
            )
            seconds = time.perf_counter() - started_s
            self._measures.lake_flush_seconds.labels(self.topic).observe(seconds)
            self._measures.lake_rows.labels(self.topic).inc(rows)
            self._measures.lake_skipped.labels(self.topic).inc(skipped)
            self.rows += rows
            self.committed |= moved
            self._buffer, self._buffered_bytes = [], 0
            self._commits += 1
            if self._commits % COMPACT_EVERY == 0:
                await self._compact()
        self._flush_due_s = time.monotonic() + self._settings.lake_flush_s

    async def _compact(self) -> None:
        try:
            files = await self._process.call(self.topic, "compact", self._partitions)
        except DependencyUnavailable as error:
            # Nothing is wrong with the table; the next time will do.
            self._log.warning("lake_not_compacted", reason=str(error))
        else:
            self._log.info("lake_compacted", files=files)
