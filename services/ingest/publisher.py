"""Collect events per partition and append them as EventBatch records.

A bounded queue of promises: what `take` accepts is appended, or its failure is told by index.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankstream import metrics, topics
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import encode_batch, encode_item
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.ids import partition_of
from rankstream.errors import NotReady, QueueFull, RankstreamError
from rankstream.pb import events_pb2 as pb
from rankstream.ports import EventLog
from services.ingest.intake import Accepted
from services.ingest.settings import IngestSettings

# JSON bytes of a batch; the columns of a batch never take more than four times its JSON.
BATCH_BYTES_MAX = topics.MAX_RECORD_BYTES // 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request's events: `failed` indexes have no ack; `error` says why."""

    failed: tuple[int, ...] = ()
    error: RankstreamError | None = None


@dataclass(slots=True)
class _Batch:
    """The events of one partition that will share a record."""

    partition: int
    done: asyncio.Future[None]
    events: list[Event] = field(default_factory=list)
    size: int = 0
    timer: asyncio.TimerHandle | None = None


class Publisher:
    """Batches per partition in front of an EventLog. Used from one loop."""

    def __init__(self, log: EventLog, settings: IngestSettings, metrics_of: Metrics) -> None:
        self._log = log
        self._settings = settings
        self._open: dict[int, _Batch] = {}
        self._sends: set[asyncio.Task[None]] = set()
        self._queued = 0
        self._partitions: int | None = None
        self._accepted = metrics_of.counter(metrics.INGEST_ACCEPTED)
        self._dead = metrics_of.counter(metrics.INGEST_DEAD_LETTERS)
        self._batch_events = metrics_of.histogram(metrics.INGEST_BATCH_EVENTS)
        self._produce_seconds = metrics_of.histogram(metrics.PRODUCE_SECONDS)
        metrics_of.gauge(metrics.INGEST_QUEUE_EVENTS).set_function(lambda: self._queued)

    @property
    def queued(self) -> int:
        """Events and dead letters taken and not yet acked."""
        return self._queued

    async def locate(self) -> None:
        """Learn the partitions of `events` from the cluster. Raises: DependencyUnavailable."""
        self._partitions = await self._log.partitions(topics.EVENTS.name)

    async def take(
        self, accepted: Sequence[Accepted], letters: Sequence[pb.DeadLetter], *, source: str
    ) -> Outcome:
        """Append events, items and dead letters; return when the log has acked or refused each.

        Raises:
            QueueFull: they do not fit beside what is queued; none of them was taken.
            NotReady: the cluster has not told its partitions yet; none was taken.
        """
        room = self._settings.queue_events_max - self._queued
        if len(accepted) + len(letters) > room:
            raise QueueFull(
                f"queue_full: {self._queued} events wait for Kafka, {len(accepted) + len(letters)}"
                f" more do not fit (limit {self._settings.queue_events_max}). None was accepted."
                " Send them again after the time in Retry-After."
            )
        if self._partitions is None:
            raise NotReady(
                "not_ready: Kafka has not answered since the start. None was accepted. Try again."
            )
        waits: dict[Awaitable[None], list[int]] = defaultdict(list)
        for entry in accepted:
            waits[self._enqueue(entry, self._partitions)].append(entry.index)
        for letter in letters:
            waits[self._start(self._append_letter(letter), 1)] = []
        outcome = await _outcome(waits)
        failed = set(outcome.failed)
        kinds = Counter(entry.message.kind for entry in accepted if entry.index not in failed)
        for kind, count in kinds.items():
            self._accepted.labels(source, kind).inc(count)
        return outcome

    async def drain(self) -> None:
        """Append what is queued now, and wait for its acks or failures."""
        for partition in tuple(self._open):
            self._flush(partition)
        if self._sends:
            await asyncio.wait(self._sends)

    def _enqueue(self, entry: Accepted, partitions: int) -> Awaitable[None]:
        message = entry.message
        if isinstance(message, ItemUpdate):
            return self._start(self._append_item(message), 1)
        self._queued += 1
        partition = partition_of(message.user_id, partitions)
        batch = self._open.get(partition)
        if batch is None:
            loop = asyncio.get_running_loop()
            batch = self._open[partition] = _Batch(partition, loop.create_future())
            wait_s = self._settings.batch_wait_ms / 1000
            batch.timer = loop.call_later(wait_s, self._flush, partition)
        batch.events.append(message)
        batch.size += entry.size
        full = len(batch.events) >= self._settings.batch_events_max
        if full or batch.size >= BATCH_BYTES_MAX:
            self._flush(partition)
        return batch.done

    def _flush(self, partition: int) -> None:
        batch = self._open.pop(partition)
        assert batch.timer is not None
        batch.timer.cancel()
        self._queued -= len(batch.events)
        task = self._start(self._append_batch(batch), len(batch.events))
        task.add_done_callback(lambda sent: _settle(batch.done, sent))

    def _start(self, send: Coroutine[Any, Any, None], events: int) -> asyncio.Task[None]:
        """Run a send on its own: the client that waits for it may go away."""
        self._queued += events
        task = asyncio.get_running_loop().create_task(send)
        self._sends.add(task)

        def ended(sent: asyncio.Task[None]) -> None:
            self._sends.discard(sent)
            self._queued -= events
            if not sent.cancelled():
                sent.exception()  # seen, even when nobody waits any more

        task.add_done_callback(ended)
        return task

    async def _append_batch(self, batch: _Batch) -> None:
        self._batch_events.observe(len(batch.events))
        await self._append(topics.EVENTS, encode_batch(batch.events), partition=batch.partition)

    async def _append_item(self, item: ItemUpdate) -> None:
        await self._append(topics.ITEMS, encode_item(item), key=item.item_id.encode())

    async def _append_letter(self, letter: pb.DeadLetter) -> None:
        await self._append(topics.EVENTS_DEAD, letter.SerializeToString())
        self._dead.labels(letter.code).inc()

    async def _append(
        self, topic: topics.Topic, value: bytes, *, key: bytes = b"", partition: int | None = None
    ) -> None:
        started = time.perf_counter()
        await self._log.send(topic.name, value, key=key, partition=partition)
        self._produce_seconds.labels(topic.name).observe(time.perf_counter() - started)


def _settle(done: asyncio.Future[None], sent: asyncio.Task[None]) -> None:
    if sent.cancelled():
        done.cancel()
        return
    error = sent.exception()
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()  # seen, even when nobody waits any more


async def _outcome(waits: dict[Awaitable[None], list[int]]) -> Outcome:
    futures = {asyncio.ensure_future(waiting): rows for waiting, rows in waits.items()}
    if futures:
        await asyncio.wait(futures)
    failed: list[int] = []
    first: RankstreamError | None = None
    for future, rows in futures.items():
        error = future.exception()
        if error is None:
            continue
        if not isinstance(error, RankstreamError):
            raise error
        failed.extend(rows)
        first = first or error
    return Outcome(tuple(sorted(failed)), first)
