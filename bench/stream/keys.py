"""What a key costs: processor time per event and memory per user, from 10^4 to 10^6 users.

Each user is first seen in a slate of its own, then the usual traffic is drawn from all of them. In
between lies a day of thin traffic: the first slates' sessions and labels are closed by then, what
is left is the key itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from bench.stream.errors import MeasurementFailed
from bench.stream.load import AFTER_MS_MAX, LoadRecord, Traffic, draw, records
from bench.stream.servers import PARTITIONS, Servers, ends, produce, reset
from bench.stream.worker import Worker, drained, start
from rankstream import metrics, topics

FEW: Final = 10_000
MANY: Final = 1_000_000
EVENTS: Final = 300_000
BETWEEN: Final = 30_000
CLOSED_S_MAX: Final = 120.0
DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Keys:
    """With so many users."""

    users: int
    cpu_s_per_event: float
    rows_per_event: float  # written to Redis: a user's many events of a moment are one row
    rss_bytes: int  # of the worker, at the end
    redis_bytes: int  # used_memory of Redis, at the end


@contextmanager
def filled(servers: Servers, users: int) -> Iterator[Worker]:
    """A worker that has folded the first slates of so many users, and closed their labels.

    Stopped at the end, unless it has ended by then.

    Raises: MeasurementFailed if it knows another number of users than that, or keeps their labels.
    """
    reset(servers)
    end_ms = time.time_ns() // 1_000_000 - DAY_MS
    first = Traffic(
        users,
        users=users,
        impressions_per_slate=1,
        span_ms=DAY_MS,
        # So that the thin traffic, of the day behind it, outlasts its conversion windows.
        end_ms=end_ms - DAY_MS - AFTER_MS_MAX,
        seed=2,
        every_user=True,
    )
    load = records(draw(first), partitions=PARTITIONS, size=100)
    produce(servers, load, topics.EVENTS.name)
    thin = usual(users, BETWEEN, end_ms=end_ms, seed=4)
    log_ends = produce(servers, thin, topics.EVENTS.name)
    worker = start(servers)
    try:
        drained(servers, [worker], log_ends)
        known = sum(part["users"] for part in worker.counts()["partitions"].values())
        if known != users:
            raise MeasurementFailed(f"{users} users were sent, the worker knows {known}")
        _close(worker)
        yield worker
    finally:
        worker.stop()


def _close(worker: Worker) -> None:
    """Wait for ticks to close what is due: of the thin traffic, a run closes only so much."""
    deadline = time.monotonic() + CLOSED_S_MAX
    while (labels := worker.counts()["open_labels"]) > BETWEEN:
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"{labels} labels are open after {CLOSED_S_MAX:g} s")
        time.sleep(1)


def with_keys(servers: Servers, users: int) -> Keys:
    """Fold the usual traffic of so many users, all of them known already."""
    with filled(servers, users) as worker:
        already, rows = sum(ends(servers, topics.EVENTS.name)), _rows(worker)
        load = usual(users, EVENTS, end_ms=time.time_ns() // 1_000_000)
        span = drained(servers, [worker], produce(servers, load, topics.EVENTS.name), already)
        with servers.redis() as client:
            memory: Any = client.info("memory")
        events = sum(record.events for record in load) * span.records / len(load)
        return Keys(
            users,
            span.cpu_s / events,
            (_rows(worker) - rows) / sum(record.events for record in load),
            worker.rss_bytes(),
            int(memory["used_memory"]),
        )


def _rows(worker: Worker) -> float:
    families = text_string_to_metric_families(worker.metrics())
    name = metrics.FEATURES_ROWS.name
    return sum(one.value for family in families for one in family.samples if one.name == name)


def usual(users: int, events: int, *, end_ms: int, seed: int = 3) -> list[LoadRecord]:
    """The usual traffic of a day."""
    traffic = Traffic(events, users=users, span_ms=DAY_MS, end_ms=end_ms, seed=seed)
    return list(records(draw(traffic), partitions=PARTITIONS, size=100))
