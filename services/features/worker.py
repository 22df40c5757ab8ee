"""The loop of one partition of one stage: fold, send, commit, acknowledge; and its recovery.

Redis says where a partition stands, Faust only which partitions are ours and what comes in. So a
record that Faust skips is read from the log, and one that it repeats is skipped.

Order of a batch: outputs are acked by Kafka, then rows and offsets are committed in one
transaction, then Faust may commit its offset. A crash in between sends outputs again with the same
(source_partition, source_offset), which readers skip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.log_range import PartitionLog
from rankstream.contracts.codec import encode_tick
from rankstream.contracts.ids import new_id
from rankstream.errors import DependencyUnavailable, InvalidArtifact, QueueFull
from rankstream.pb import events_pb2 as pb
from rankstream.ports import EventLog
from services.features.commit import Fence
from services.features.dead_share import DeadShare
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from services.features.snapshots import SnapshotFolder
from services.features.stages import Send, Stage

RETRY_S: Final = 1.0
ROWS_PER_COMMIT: Final = 2_000
SLICE_S: Final = 0.005
OWNER_TAIL: Final = 12


@dataclass(frozen=True, slots=True)
class Delivery:
    """A record as Faust delivered it; `ack` tells Faust that its effects are durable."""

    record: Record
    ack: Callable[[], object]


@dataclass(frozen=True)
class Shared:
    """What all partitions of this worker use."""

    settings: FeaturesSettings
    producer: EventLog
    snapshots: SnapshotFolder
    measures: Measures
    dead_share: DeadShare
    now_ms: Callable[[], int]


class PartitionWorker:
    """Owns one partition of one stage while `run` runs."""

    def __init__(
        self, partition: int, new_stage: Callable[[], Stage], shared: Shared, *, ticks: bool
    ) -> None:
        self.partition = partition
        self.caught_up = False
        self.stage = new_stage()
        self._new_stage = new_stage
        self._shared = shared
        self._ticks = ticks
        self._inbox: asyncio.Queue[Delivery] = asyncio.Queue(shared.settings.inbox_records)
        self._unacked: list[Delivery] = []
        self._fence: Fence | None = None
        self._stopping = asyncio.Event()
        self._snapshot_due_s = 0.0
        self._since_snapshot = 0
        self._log = structlog.get_logger().bind(stage=self.stage.name, partition=partition)

    async def put(self, delivery: Delivery) -> None:
        """Hand over a record; waits while the inbox is full. A stopped worker takes none."""
        if not self._stopping.is_set():
            await self._inbox.put(delivery)

    def stop(self) -> None:
        """Have `run` end after the batch in hand, with a snapshot."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until stopped; an outage of Kafka or Redis is waited out.

        Raises:
            Fenced: another worker owns the partition.
            TooManyDeadLetters: the stream is poisoned.
            Conflict: the log no longer has what is needed.
        """
        try:
            while not self._stopping.is_set():
                try:
                    await self._open()
                    await self._consume()
                except (DependencyUnavailable, QueueFull) as error:
                    # Whether the batch was stored is unknown: read back where Redis stands.
                    self.caught_up = False
                    self._shared.measures.restarts.labels(self.stage.name).inc()
                    self._log.warning("partition_interrupted", reason=str(error))
                    await self._wait(RETRY_S)
                finally:
                    await self._close()
        finally:
            self.caught_up = False
            drain(self._stopping, self._inbox)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _close(self) -> None:
        if self._fence is not None:
            await self._fence.close()
            self._fence = None

    # Opening: claim, load, replay, catch up.

    async def _open(self) -> None:
        settings = self._shared.settings
        self._fence = fence = Fence(
            settings.redis_url,
            stage=self.stage.name,
            partition=self.partition,
            owner=new_id()[-OWNER_TAIL:],
            timeout_s=settings.redis_timeout_s,
        )
        committed = await fence.claim()
        loaded = await self._load()
        at = self.stage.next_offsets()
        until = committed or (0,) * len(at)
        reason = ""
        if any(own > stored for own, stored in zip(at, until, strict=True)):
            # Redis is older than the snapshot: it has lost commits. Write every row again; what
            # was sent up to the snapshot is in the log for good and is not sent again.
            reason, until = "redis_lost_rows", tuple(map(max, at, until))
            self.stage = self._new_stage()
        elif not loaded and any(until):
            reason = "snapshot_refused"
        await self._replay(until)
        if reason:
            self._shared.measures.rebuilds.labels(self.stage.name, reason).inc()
            self._log.warning("partition_rebuilt", reason=reason, offsets=until)
            await self._commit(committed)
        else:
            self.stage.forget_changes()
        self._snapshot_due_s = time.monotonic() + settings.snapshot_every_s
        await self._catch_up()
        self._acknowledge()
        self.caught_up = True
        self._log.info("partition_opened", offsets=self.stage.next_offsets())

    async def _load(self) -> bool:
        """Load the snapshot, if there is one; False if there was one and it cannot be used."""
        self.stage = self._new_stage()
        name, folder = self.stage.name, self._shared.snapshots
        snapshot = await asyncio.to_thread(folder.load, name, self.partition)
        if snapshot is None:
            return True
        try:
            self.stage.load(snapshot)
        except InvalidArtifact as error:
            self._shared.measures.snapshots.labels(name, "refused").inc()
            self._log.warning("snapshot_refused", reason=str(error))
            self.stage = self._new_stage()
            return False
        return True

    async def _replay(self, until: Sequence[int]) -> None:
        """Fold what was committed before: nothing is sent, nothing written."""
        for index, topic in enumerate(self.stage.topics):
            start = self.stage.next_offsets()[index]
            if start >= until[index]:
                continue
            async with aclosing(self._source(topic).read(start, until[index])) as portions:
                async for records in portions:
                    self._shared.measures.replayed.labels(self.stage.name).inc(len(records))
                    await self._fold(records)

    async def _catch_up(self) -> None:
        """Process what is in the log now, whatever the group has committed."""
        size = self._shared.settings.batch_records
        for index, topic in enumerate(self.stage.topics):
            start = self.stage.next_offsets()[index]
            async with aclosing(self._source(topic).read(start)) as portions:
                async for records in portions:
                    for first in range(0, len(records), size):
                        await self._process(records[first : first + size])
                        if self._stopping.is_set():
                            return

    def _source(self, topic: str) -> PartitionLog:
        url = self._shared.settings.kafka_url
        return PartitionLog(url, topic, self.partition, client_id="features")

    # The loop.

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            deliveries = await self._take()
            self._unacked += deliveries
            if deliveries:
                await self._process(await self._unread(deliveries))
                self._acknowledge()
            else:
                await self._tick()
            await self._snapshot_if_due()
        if self._since_snapshot:
            await self._snapshot()

    def _acknowledge(self) -> None:
        """Let Faust commit everything taken: it is folded, or was before it came."""
        for delivery in self._unacked:
            delivery.ack()
        self._unacked.clear()

    async def _take(self) -> list[Delivery]:
        """The next records, a linger's worth; none if none came for the idle time, or on stop."""
        settings = self._shared.settings
        getting = asyncio.create_task(self._inbox.get())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                (getting, stopping),
                timeout=settings.idle_ms / 1000,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            stopping.cancel()
            if not getting.done():
                getting.cancel()
        if not getting.done() or getting.cancelled():
            return []
        taken = [getting.result()]
        if self._inbox.qsize() < settings.batch_records - 1:
            await asyncio.sleep(settings.linger_ms / 1000)
        while len(taken) < settings.batch_records and not self._inbox.empty():
            taken.append(self._inbox.get_nowait())
        return taken

    async def _unread(self, deliveries: Iterable[Delivery]) -> list[Record]:
        """The delivered records that are not folded yet, with those that Faust left out."""
        position = dict(zip(self.stage.topics, self.stage.next_offsets(), strict=True))
        records: list[Record] = []
        for delivery in deliveries:
            record = delivery.record
            if record.offset < position[record.topic]:
                continue
            if record.offset > position[record.topic]:
                source = self._source(record.topic)
                async with aclosing(source.read(position[record.topic], record.offset)) as missed:
                    async for portion in missed:
                        records += portion
            position[record.topic] = record.offset + 1
            records.append(record)
        return records

    async def _fold(self, records: Iterable[Record]) -> list[Send]:
        sends: list[Send] = []
        slice_end_s = time.monotonic() + SLICE_S
        for record in records:
            sends += self.stage.fold(record)
            if time.monotonic() > slice_end_s:
                await asyncio.sleep(0)
                slice_end_s = time.monotonic() + SLICE_S
        return sends

    async def _process(self, records: Sequence[Record]) -> None:
        if not records:
            return
        shared, name, totals = self._shared, self.stage.name, self.stage.totals
        events, refused = totals.events, totals.refused
        started_s = time.perf_counter()
        sends = await self._fold(records)
        shared.measures.fold_seconds.labels(name).observe(time.perf_counter() - started_s)
        shared.dead_share.add(totals.events - events, totals.refused - refused)
        if sends:
            await self._send(sends)
        await self._commit(None)
        self._since_snapshot += len(records)
        self._measure(records)

    async def _send(self, sends: Sequence[Send]) -> None:
        measures, name = self._shared.measures, self.stage.name
        started_s = time.perf_counter()
        producer = self._shared.producer
        await asyncio.gather(
            *(producer.send(send.topic, send.value, partition=send.partition) for send in sends)
        )
        measures.send_seconds.labels(name).observe(time.perf_counter() - started_s)
        for send in sends:
            if send.topic == topics.EVENTS_DEAD.name:
                measures.dead_letters.labels(pb.DeadLetter.FromString(send.value).code).inc()

    async def _commit(self, meanwhile: Sequence[int] | None) -> None:
        """Write the changed rows; the offsets go with the last of them.

        `meanwhile` goes with the others when they do not fit one transaction: where Redis stood.
        """
        assert self._fence is not None
        measures, name = self._shared.measures, self.stage.name
        rows = self.stage.changed_rows(ROWS_PER_COMMIT)
        following = self.stage.changed_rows(ROWS_PER_COMMIT) if rows else []
        while following:
            if meanwhile is None:
                rows += following
            else:
                await self._fence.commit(rows, meanwhile)
                measures.rows.labels(name).inc(len(rows))
                rows = following
            following = self.stage.changed_rows(ROWS_PER_COMMIT)
        started_s = time.perf_counter()
        await self._fence.commit(rows, self.stage.next_offsets())
        measures.commit_seconds.labels(name).observe(time.perf_counter() - started_s)
        measures.rows.labels(name).inc(len(rows))

    def _measure(self, records: Sequence[Record]) -> None:
        measures, name, now_ms = self._shared.measures, self.stage.name, self._shared.now_ms()
        since_append = measures.freshness.labels(name, "append")
        for record in records:
            since_append.observe(max(0, now_ms - record.timestamp_ms) / 1000)
        measures.records.labels(name).inc(len(records))
        since_event = measures.freshness.labels(name, "event")
        for time_ms in self.stage.folded_times_ms():
            since_event.observe(max(0, now_ms - time_ms) / 1000)

    # Idle partitions and snapshots.

    async def _tick(self) -> None:
        """Have the log say that time has passed, if anything waits for it.

        A tick moves event time on by as much as the clock has moved since the last record, so it
        closes windows of live traffic in time, and never outruns a history that is being loaded.
        """
        newest_ms = self.stage.newest_ms()
        if not self._ticks or not newest_ms or not _waits(self.stage.sizes()):
            return
        passed_ms = self._shared.now_ms() - self.stage.last_append_ms
        if passed_ms < self._shared.settings.idle_ms:
            return
        tick = encode_tick(new_id(), newest_ms + passed_ms)
        await self._shared.producer.send(topics.EVENTS.name, tick, partition=self.partition)
        self._shared.measures.ticks.inc()

    async def _snapshot_if_due(self) -> None:
        if not self._since_snapshot:
            return
        due = time.monotonic() >= self._snapshot_due_s
        if due or self._since_snapshot >= self._shared.settings.snapshot_every_records:
            await self._snapshot()

    async def _snapshot(self) -> None:
        """Save the state off the loop; this partition waits meanwhile. A full disk is survived."""
        stage, folder = self.stage, self._shared.snapshots

        def save() -> None:
            folder.save(stage.name, self.partition, stage.dump())

        measures = self._shared.measures.snapshots
        try:
            await asyncio.to_thread(save)
        except OSError as error:
            measures.labels(stage.name, "failed").inc()
            self._log.warning("snapshot_failed", reason=str(error))
        else:
            measures.labels(stage.name, "saved").inc()
        self._since_snapshot = 0
        self._snapshot_due_s = time.monotonic() + self._shared.settings.snapshot_every_s


def drain(stopping: asyncio.Event, inbox: asyncio.Queue[Delivery]) -> None:
    """Let go of whoever waits for room in the inbox of a worker that has ended."""
    stopping.set()
    while not inbox.empty():
        inbox.get_nowait()


def _waits(sizes: dict[str, int]) -> bool:
    return sizes.get("open_labels", 0) > 0 or sizes.get("open_sessions", 0) > 0
