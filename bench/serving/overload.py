"""More requests than can be answered: what is still answered in time, and how fast.

The ranker, with the index in its process, has one core for itself; Redis, Kafka and the generator
have the other. Requests come on a clock and wait for nobody; latency and deadline count from when a
request was due. The rate rises until goodput (whole answers in time, per second) falls; then
OVERLOAD times the rate of the best step comes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import psutil
import uvloop

from bench.figures import Figure, figure
from bench.serving.load import Calls, closed_loop, open_loop
from bench.serving.processes import Service, start
from bench.serving.recommend import indexed, requests_of
from bench.serving.shop import OTHER_CORE, SERVED_CORE, Shop
from bench.stream.errors import MeasurementFailed
from bench.stream.servers import Servers, started

Say = Callable[[str], None]

ITEMS: Final = 100_000
USERS: Final = 300
DEADLINE_S: Final = 0.2
STEPS: Final = (0.6, 0.75, 0.9, 1.0, 1.1, 1.25)  # of what four callers get who wait
OVERLOAD: Final = 3.0
STEP_S: Final = 5.0
OVERLOAD_S: Final = 10.0
REPEATS: Final = 3
CALLERS: Final = 4
IN_PROCESS: Final = MappingProxyType({"RETRIEVAL_IN_PROCESS": "true"})
CALLS: Final = 1_000
GENERATOR_MAX: Final = 0.8  # of its core


@dataclass(frozen=True)
class Step:
    """One rate, and what came of it."""

    per_s: float
    good_per_s: float
    p99_ms: float
    calls: Calls

    def __str__(self) -> str:
        refused = ", ".join(f"{count} {code}" for code, count in self.calls.failed.items())
        return (
            f"{self.per_s:.0f}/s offered, {self.good_per_s:.0f}/s good, p99 {self.p99_ms:.0f} ms,"
            f" refused: {refused or 'none'}, degraded: {dict(self.calls.degraded) or 'none'}"
        )


def overload(say: Say) -> list[Figure]:
    """Goodput and p99 of answers at three times the rate of saturation, against those at it."""
    with started() as servers:
        shop = opened_shop(servers, say)
        ranker = started_ranker(servers, shop)
        found = [_repeated(ranker, shop, say) for _ in range(REPEATS)]
        ranker.stop()
    kept, slower, peak, p99 = zip(*found, strict=True)
    return [
        figure("serving.overload.goodput_ratio", kept, "ratio"),
        figure("serving.overload.p99_ratio", slower, "ratio"),
        figure("serving.overload.peak_goodput", peak, "answers/s"),
        figure("serving.overload.p99_ms", p99, "ms"),
    ]


def opened_shop(servers: Servers, say: Say) -> Shop:
    """Rows, model and index, published; this process and the servers leave the ranker its core."""
    shop = indexed(servers, ITEMS, say)
    os.sched_setaffinity(0, OTHER_CORE)
    for record in servers.processes.records().values():
        for process in (one := psutil.Process(record.pid), *one.children(recursive=True)):
            for thread in process.threads():
                os.sched_setaffinity(thread.id, OTHER_CORE)
    return shop


def started_ranker(
    servers: Servers, shop: Shop, retrieval: Mapping[str, str] = IN_PROCESS
) -> Service:
    """A warm ranker, else with its settings as they come, alone on its core."""
    settings = {
        "REDIS_URL": servers.redis_url,
        "ARTIFACTS": str(servers.folder / "artifacts"),
        "ROWS_KEPT": str(ITEMS),
        **retrieval,
    }
    ranker = start(servers, "ranker", settings)
    ranker.await_ready()
    ranker.pin(SERVED_CORE)
    saturation(ranker, shop)
    return ranker


def saturation(ranker: Service, shop: Shop) -> float:
    """Answers per second that callers get who wait for theirs."""
    done = asyncio.run(
        closed_loop(ranker.grpc, "Recommend", requests_of(shop), calls=CALLS, callers=CALLERS)
    )
    return len(done.latency_s) / done.wall_s


def _repeated(ranker: Service, shop: Shop, say: Say) -> tuple[float, float, float, float]:
    about = saturation(ranker, shop)
    steps = []
    for share in STEPS:
        steps.append(step(ranker, shop, share * about, STEP_S))
        say(f"overload, {share:g} of {about:.0f}/s: {steps[-1]}")
    peak = max(steps, key=lambda one: one.good_per_s)
    beyond = step(ranker, shop, OVERLOAD * peak.per_s, OVERLOAD_S)
    say(f"overload, {OVERLOAD:g} x {peak.per_s:.0f}/s: {beyond}")
    return (
        beyond.good_per_s / peak.good_per_s,
        beyond.p99_ms / peak.p99_ms,
        peak.good_per_s,
        beyond.p99_ms,
    )


def step(ranker: Service, shop: Shop, per_s: float, seconds: float) -> Step:
    """Requests at a rate. Raises: MeasurementFailed if it is the generator that is at its limit."""
    own, began_s = psutil.Process(), time.perf_counter()
    before_s = sum(own.cpu_times()[:2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        calls = runner.run(
            open_loop(
                ranker.grpc,
                "Recommend",
                requests_of(shop),
                per_s=per_s,
                seconds=seconds,
                deadline_s=DEADLINE_S,
            )
        )
    busy = (sum(own.cpu_times()[:2]) - before_s) / (time.perf_counter() - began_s)
    if busy > GENERATOR_MAX:
        raise MeasurementFailed(f"the generator used {busy:.0%} of its core")
    shed = calls.failed["RESOURCE_EXHAUSTED"] + calls.failed["UNAVAILABLE"]
    if calls.hinted < shed:
        raise MeasurementFailed(f"{shed - calls.hinted} refusals did not say when to come again")
    latency_ms = np.array(calls.latency_s) * 1_000
    good = int(np.count_nonzero(latency_ms <= DEADLINE_S * 1_000)) - max(
        calls.degraded.values(), default=0
    )
    p99_ms = float(np.quantile(latency_ms, 0.99)) if len(latency_ms) else np.inf
    return Step(per_s, good / seconds, p99_ms, calls)
