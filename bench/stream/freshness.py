"""From the hand-over of an event to the producer until its rows can be read in Redis.

User rows: for every record, until the offset key, which is written in the transaction of the rows,
has passed it. Item rows: probes, one impression each of an item that nobody has seen, until the
item's row is there; this is the longer way, over both stages, and the one that is promised.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import redis

from bench.stream.errors import MeasurementFailed
from bench.stream.load import AFTER_MS_MAX, LoadRecord, Traffic, draw, records
from bench.stream.pace import Pacer
from bench.stream.servers import PARTITIONS, Servers, reset
from bench.stream.worker import Progress, start
from rankstream import topics
from rankstream.adapters.redis_rows import ITEM_STATE, entity_key
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.contracts.events import Impression
from rankstream.contracts.ids import new_id, partition_of

WARM_UP_S: Final = 8.0
WINDOW_S: Final = 20.0
PROBE_EVERY_S: Final = 0.05
POLL_S: Final = 0.006
TAIL_S: Final = 30.0
# A record of 100 events then spans some minutes, less than the default lateness.
MS_PER_EVENT: Final = 400


@dataclass(frozen=True)
class Freshness:
    """Of one window, ms."""

    user_ms: tuple[float, float]  # p50, p99 over all records
    item_ms: tuple[float, float]  # p50, p99 over the probes
    per_cpu_s: float  # events per CPU-second of the worker, at this rate


@dataclass
class _Watch:
    """What is on its way, and what has arrived in this window."""

    client: redis.Redis
    progress: Progress
    probes: dict[bytes, float] = field(default_factory=dict)
    waiting: list[list[tuple[int, float]]] = field(
        default_factory=lambda: [[] for _ in range(PARTITIONS)]
    )
    user_s: list[float] = field(default_factory=list)
    item_s: list[float] = field(default_factory=list)

    def look(self, pacer: Pacer) -> None:
        """Ask Redis once for everything that is on its way."""
        for partition, offset, since_s in pacer.acknowledged:
            self.waiting[partition].append((offset, since_s))
        pacer.acknowledged.clear()
        committed, now_s = self.progress.users(), time.monotonic()
        for following, waiting in zip(committed, self.waiting, strict=True):
            arrived = [since_s for offset, since_s in waiting if offset < following]
            self.user_s += [now_s - since_s for since_s in arrived]
            waiting[:] = [one for one in waiting if one[0] >= following]
        keys = list(self.probes)
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(key)
        there, now_s = pipeline.execute() if keys else [], time.monotonic()
        for key, found in zip(keys, there, strict=True):
            if found:
                self.item_s.append(now_s - self.probes.pop(key))

    def empty(self) -> bool:
        return not self.probes and not any(self.waiting)


def freshness(servers: Servers, events_per_s: float, windows: int) -> list[Freshness]:
    """Produce at this rate with batches of 100, and watch."""
    reset(servers)
    worker = start(servers)
    try:
        worker.await_ready()
        with servers.redis() as client:
            watch = _Watch(client, Progress(client))
            seconds = WARM_UP_S + WINDOW_S * (windows + 1)
            pacer = Pacer(
                servers.kafka, topics.EVENTS.name, _load(events_per_s * seconds), events_per_s
            )
            _run(pacer, watch, WARM_UP_S)
            found = []
            for _ in range(windows):
                watch.user_s, watch.item_s = [], []
                cpu_s, events = worker.cpu_s(), pacer.events
                _run(pacer, watch, WINDOW_S)
                spent_s = worker.cpu_s() - cpu_s
                found.append(
                    Freshness(
                        _quantiles_ms(watch.user_s),
                        _quantiles_ms(watch.item_s),
                        (pacer.events - events) / spent_s,
                    )
                )
            _drain(pacer, watch)
            return found
    finally:
        worker.stop()


def _load(events: float) -> Iterator[LoadRecord]:
    """The same traffic as the full log's, as dense; its event time runs faster than the clock."""
    traffic = Traffic(
        round(events),
        span_ms=round(events * MS_PER_EVENT) + AFTER_MS_MAX,
        end_ms=time.time_ns() // 1_000_000,
    )
    return iter(list(records(draw(traffic), partitions=PARTITIONS, size=100)))


def _run(pacer: Pacer, watch: _Watch, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    probe_s = time.monotonic()
    while (now_s := time.monotonic()) < end_s:
        if not pacer.step():
            raise MeasurementFailed("the load came to its end before the measurement")
        if now_s >= probe_s:
            probe_s += PROBE_EVERY_S
            record, key = _probe(pacer.last)
            watch.probes[key] = time.monotonic()
            pacer.send(record)
        watch.look(pacer)
        time.sleep(POLL_S)


def _drain(pacer: Pacer, watch: _Watch) -> None:
    """Everything sent must arrive: what never does would be missing in the quantiles."""
    pacer.close()
    deadline = time.monotonic() + TAIL_S
    while not watch.empty():
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"{len(watch.probes)} probes were not in Redis in {TAIL_S:g} s")
        watch.look(pacer)
        time.sleep(POLL_S)


def _probe(beside: bytes) -> tuple[LoadRecord, bytes]:
    """An impression of an item that nobody has seen, and the key of its row.

    It happened with the events of the record `beside`: a later time would make the load late.
    """
    name = new_id()
    event = Impression(
        event_id=name,
        user_id=f"probe-{name}",
        item_id=f"probe-{name}",
        request_id=name,
        event_time_ms=int(decode_batch(beside).event_time_ms.max()),
        position=0,
    )
    record = LoadRecord(partition_of(event.user_id, PARTITIONS), 1, encode_batch([event]))
    return record, entity_key(ITEM_STATE, event.item_id)


def _quantiles_ms(seconds: list[float]) -> tuple[float, float]:
    p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1000
    return float(p50), float(p99)
