"""The loop of one partition of one stage: fold, send, commit, snapshot.

Redis says where a partition stands, Faust only which partitions are ours and what comes in. So a
record that Faust skips is read from the log, and one that it repeats is skipped.

Records are folded in runs. Of each run, its labels are appended first (`journal`), then what else
it puts out; rows and positions of some runs are committed in one transaction. A crash in between
sends the last run again, which readers skip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import groupby
from operator import attrgetter
from typing import Final

import structlog

from rankstream import topics
from rankstream.adapters.log_range import PartitionLog
from rankstream.contracts.codec import encode_tick
from rankstream.contracts.ids import new_id
from rankstream.contracts.record import Record
from rankstream.errors import DependencyUnavailable, QueueFull
from rankstream.pb import events_pb2 as pb
from services.features.beats import first_snapshot_s, until_beat_s
from services.features.commit import Fence
from services.features.journal import Overtaken
from services.features.opening import Opening, commit_rows
from services.features.shared import Shared
from services.features.stages import Send, Stage

RETRY_S: Final = 1.0
# A run blocks the loop while it is folded, and its labels are one record.
RUN_BYTES_MAX: Final = 256 * 1024
# Rows and positions are committed together, at the latest after so long.
COMMIT_EVERY_S: Final = 0.25
OWNER_TAIL: Final = 12


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
        self._inbox: asyncio.Queue[Record] = asyncio.Queue(shared.settings.inbox_records)
        self._fence: Fence | None = None
        self._stopping = asyncio.Event()
        self._snapshot_due_s = 0.0
        self._since_snapshot = 0
        self._behind = False
        self._folded: list[Record] = []  # and not committed
        self._commit_due_s = 0.0
        self._log = structlog.get_logger().bind(stage=self.stage.name, partition=partition)

    def put(self, record: Record) -> None:
        """Hand over a record; one for which there is no room is read from the log later."""
        if self._inbox.full():
            self._behind = True
        elif not self._stopping.is_set():
            self._inbox.put_nowait(record)

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
                    if await self._open():
                        await self._consume()
                except (DependencyUnavailable, QueueFull, Overtaken) as error:
                    # Whether the batch was stored is unknown: read back where Redis stands.
                    self.caught_up = False
                    self._shared.measures.restarts.labels(self.stage.name).inc()
                    self._log.warning("partition_interrupted", reason=str(error))
                    await self._wait(RETRY_S)
                finally:
                    await self._close()
        finally:
            self.caught_up = False
            self._stopping.set()

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

    async def _open(self) -> bool:
        """Take the partition over and bring its state up to the end of the log; not if stopped."""
        shared = self._shared
        for topic in self.stage.topics:
            shared.flow.pause(topic, self.partition)
        async with shared.openings:
            if self._stopping.is_set():
                return False
            self._fence = Fence(
                shared.settings.redis_url,
                stage=self.stage.name,
                partition=self.partition,
                owner=new_id()[-OWNER_TAIL:],
                timeout_s=shared.settings.redis_timeout_s,
            )
            opening = Opening(self._new_stage, self.partition, self._fence, shared)
            self.stage, run = await opening.restore()
        self._folded = []
        if run:
            # Its place in the journal is taken; what else it sent may be missing.
            await self._process(run, journaled=True)
            await self._commit()
        after_s = first_snapshot_s(
            self.partition, shared.settings.snapshot_every_s, self.stage.beat
        )
        self._snapshot_due_s = time.monotonic() + after_s
        await self._catch_up()
        self.caught_up = True
        self._log.info("partition_opened", offsets=self.stage.next_offsets())
        return True

    async def _catch_up(self) -> None:
        """Fold what is in the log now, read straight from it, then have Faust go on behind it."""
        flow = self._shared.flow
        for topic in self.stage.topics:
            flow.pause(topic, self.partition)
        for index, topic in enumerate(self.stage.topics):
            start = self.stage.next_offsets()[index]
            async with aclosing(self._source(topic).read(start)) as portions:
                async for records in portions:
                    await self._process_all(records)
                    if self._stopping.is_set():
                        await self._commit()
                        return
                    await self._snapshot_if_due()
            await self._commit()
        self._behind = False
        for topic, offset in zip(self.stage.topics, self.stage.next_offsets(), strict=True):
            await flow.resume(topic, self.partition, offset)

    def _source(self, topic: str) -> PartitionLog:
        url = self._shared.settings.kafka_url
        return PartitionLog(url, topic, self.partition, client_id="features")

    # The loop.

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            delivered = await self._take()
            if self._behind:
                # There is more than Faust can deliver at its price per record.
                await self._catch_up()
            elif delivered:
                for _, records in groupby(await self._unread(delivered), attrgetter("topic")):
                    await self._process_all(list(records))
                await self._commit()
            else:
                await self._tick()
            await self._snapshot_if_due()
        if self._since_snapshot:
            await self._snapshot()

    async def _take(self) -> list[Record]:
        """The next records, up to a beat; none if none came for the idle time, or on stop."""
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
            linger_s = settings.linger_ms / 1000
            await asyncio.sleep(until_beat_s(time.monotonic(), linger_s, self.stage.beat))
        while len(taken) < settings.batch_records and not self._inbox.empty():
            taken.append(self._inbox.get_nowait())
        return taken

    async def _unread(self, delivered: Iterable[Record]) -> list[Record]:
        """The delivered records that are not folded yet, with those that Faust left out."""
        position = dict(zip(self.stage.topics, self.stage.next_offsets(), strict=True))
        unread: list[Record] = []
        for record in delivered:
            if record.offset < position[record.topic]:
                continue
            if record.offset > position[record.topic]:
                source = self._source(record.topic)
                async with aclosing(source.read(position[record.topic], record.offset)) as missed:
                    async for portion in missed:
                        unread += portion
            position[record.topic] = record.offset + 1
            unread.append(record)
        return unread

    async def _process_all(self, records: Sequence[Record]) -> None:
        """Process records of one topic; under load a key's row is written once for many runs."""
        for run in runs_of(records, self._shared.settings.batch_records):
            await self._process(run)
            if time.monotonic() >= self._commit_due_s:
                await self._commit()

    async def _process(self, records: Sequence[Record], *, journaled: bool = False) -> None:
        """Fold a run of records and send what comes of it."""
        shared, name, totals = self._shared, self.stage.name, self.stage.totals
        events, refused = totals.events, totals.refused
        started_s = time.perf_counter()
        folded = self.stage.fold(records)
        shared.measures.fold_seconds.labels(name).observe(time.perf_counter() - started_s)
        shared.dead_share.add(totals.events - events, totals.refused - refused)
        if folded.journal is not None and not journaled:
            await self._write_journal(folded.journal)
        if folded.sends:
            await self._send(folded.sends)
        self._folded += records

    async def _write_journal(self, run: bytes) -> None:
        assert self._fence is not None
        topic, stage = topics.LABELS.name, self.stage
        _, offset = await self._shared.producer.send(topic, run, partition=self.partition)
        if offset != stage.journal_next:
            await self._fence.verify()
            raise Overtaken(f"{topic}[{self.partition}]: {offset}, expected {stage.journal_next}")
        stage.journal_next = offset + 1

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

    async def _commit(self) -> None:
        """Write the rows that changed since the last commit, and where to go on."""
        self._commit_due_s = time.monotonic() + COMMIT_EVERY_S
        if not self._folded:
            return
        assert self._fence is not None
        measures, name = self._shared.measures, self.stage.name
        started_s = time.perf_counter()
        rows = await commit_rows(self._fence, self.stage)
        measures.commit_seconds.labels(name).observe(time.perf_counter() - started_s)
        measures.rows.labels(name).inc(rows)
        self._since_snapshot += len(self._folded)
        self._measure()
        self._folded = []

    def _measure(self) -> None:
        measures, name, now_ms = self._shared.measures, self.stage.name, self._shared.now_ms()
        since_append = measures.freshness.labels(name, "append")
        for record in self._folded:
            since_append.observe(max(0, now_ms - record.timestamp_ms) / 1000)
        measures.records.labels(name).inc(len(self._folded))
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
        # A snapshot ahead of Redis would look as if Redis had lost what is not committed yet.
        await self._commit()
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


def runs_of(records: Sequence[Record], records_max: int) -> Iterator[Sequence[Record]]:
    """Cut records of one topic into runs to be folded at one go."""
    run: list[Record] = []
    size = 0
    for record in records:
        length = len(record.value or b"")
        if run and (len(run) == records_max or size + length > RUN_BYTES_MAX):
            yield run
            run, size = [], 0
        run.append(record)
        size += length
    if run:
        yield run


def _waits(sizes: dict[str, int]) -> bool:
    return sizes.get("open_labels", 0) > 0 or sizes.get("open_sessions", 0) > 0
