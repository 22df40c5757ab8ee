"""Events per CPU-second of a worker that finds a full log, and how the work divides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.stream.errors import MeasurementFailed
from bench.stream.load import LoadRecord, Traffic, draw, records
from bench.stream.servers import PARTITIONS, Servers, produce, reset
from bench.stream.worker import Span, Worker, drained, start
from rankstream import topics


@dataclass(frozen=True)
class Case:
    """A full log of `events` events in records of `size`; peers have no lake."""

    size: int
    events: int
    lake: bool = False


BATCH100: Final = Case(size=100, events=400_000)
# And with what the lake costs: every event and every label in Delta tables.
BATCH100_LAKE: Final = Case(size=100, events=400_000, lake=True)
SINGLE: Final = Case(size=1, events=40_000)


@dataclass(frozen=True)
class Rate:
    """Of one run, from the first commit to the last, both stages."""

    per_cpu_s: float
    per_wall_s: float
    cpu_s: float
    busy_cores: float | None = None  # of the whole machine, if it was looked at


def saturated(servers: Servers, case: Case, *, profile: Path | None = None) -> Rate:
    """Fill the log, then start a worker and let it empty the log."""
    reset(servers)
    load = _load(case)
    log_ends = produce(servers, load, topics.EVENTS.name)
    settings = {} if case.lake else {"LAKE": ""}
    worker = start(servers, settings=settings, profile=profile)
    try:
        return _rate(load, [worker], drained(servers, [worker], log_ends))
    finally:
        worker.stop()


def shared_out(servers: Servers, case: Case, workers: int) -> Rate:
    """Have so many workers share the partitions, then fill the log at once.

    The group is at rest before the load comes: what workers that join and leave cost is not here.
    """
    reset(servers)
    load = _load(case)
    running = [start(servers, f"features-{number}") for number in range(workers)]
    try:
        for worker in running:
            worker.await_ready(PARTITIONS // workers)
        log_ends = produce(servers, load, topics.EVENTS.name)
        return _rate(load, running, drained(servers, running, log_ends))
    finally:
        for worker in running:
            worker.stop()


def _load(case: Case) -> list[LoadRecord]:
    traffic = Traffic(case.events, end_ms=time.time_ns() // 1_000_000)
    return list(records(draw(traffic), partitions=PARTITIONS, size=case.size))


def _rate(load: Sequence[LoadRecord], workers: Sequence[Worker], span: Span) -> Rate:
    """Raises: MeasurementFailed if not every event was folded or recognised as a repeat."""
    events = sum(record.events for record in load)
    counts = [worker.counts() for worker in workers]
    folded = sum(count["folded"] + count["duplicates"] for count in counts)
    if folded != events:
        raise MeasurementFailed(f"{events} events were produced, {folded} folded: {counts}")
    in_span = events * span.records / len(load)
    return Rate(in_span / span.cpu_s, in_span / span.wall_s, span.cpu_s, span.busy_cores)
