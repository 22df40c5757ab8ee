"""More requests than can be answered: what is still answered in time, and how fast.

The ranker, with the index in its process, has one core for itself, and then retrieval as a service
has; Redis, Kafka and the generator have the other. Requests come on a clock and wait for nobody;
latency and deadline count from when a request was due. The rate rises until goodput (whole answers
in time, per second) falls; then OVERLOAD times the rate of the best step comes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import psutil
import uvloop
from google.protobuf.message import Message

from bench.figures import Figure, figure
from bench.serving.load import Calls, closed_loop, open_loop
from bench.serving.processes import Service, start
from bench.serving.recommend import indexed, requests_of
from bench.serving.shop import OTHER_CORE, SERVED_CORE, Shop
from bench.stream.errors import MeasurementFailed
from bench.stream.servers import Servers, started
from rankstream.pb import retrieval_pb2
from services.ranker.candidates import request_of

Say = Callable[[str], None]

ITEMS: Final = 100_000
USERS: Final = 300
DEADLINE_S: Final = 0.2
RETRIEVAL_DEADLINE_S: Final = 0.08  # a ranker's, unless it is told otherwise
STEPS: Final = (0.6, 0.75, 0.9, 1.0, 1.1, 1.25)  # of what four callers get who wait
OVERLOAD: Final = 3.0
STEP_S: Final = 5.0
OVERLOAD_S: Final = 10.0
REPEATS: Final = 3
CALLERS: Final = 4
CANDIDATES: Final = 500
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


@dataclass(frozen=True)
class Loaded:
    """What is asked of a service, and until when it has to answer."""

    service: Service
    method: str
    requests: Callable[[], Iterator[Message]]
    deadline_s: float


def overload(say: Say) -> list[Figure]:
    """Goodput and p99 of answers at three times the rate of saturation, against those at it."""
    with started() as servers:
        shop = opened_shop(servers, say)
        ranker = started_ranker(servers, shop)
        of_ranker = Loaded(ranker, "Recommend", lambda: requests_of(shop), DEADLINE_S)
        found = [_repeated(of_ranker, say) for _ in range(REPEATS)]
        ranker.stop()
        retrieval = start(servers, "retrieval", {"ARTIFACTS": str(servers.folder / "artifacts")})
        retrieval.await_ready()
        retrieval.pin(SERVED_CORE)
        of_index = Loaded(retrieval, "Retrieve", lambda: asked_of(shop), RETRIEVAL_DEADLINE_S)
        of_retrieval = [_repeated(of_index, say) for _ in range(REPEATS)]
        retrieval.stop()
    return [*_figures("overload", found), *_figures("overload.retrieval", of_retrieval)]


def _figures(name: str, found: list[tuple[float, float, float, float]]) -> list[Figure]:
    kept, slower, peak, p99 = zip(*found, strict=True)
    return [
        figure(f"serving.{name}.goodput_ratio", kept, "ratio"),
        figure(f"serving.{name}.p99_ratio", slower, "ratio"),
        figure(f"serving.{name}.peak_goodput", peak, "answers/s"),
        figure(f"serving.{name}.p99_ms", p99, "ms"),
    ]


def asked_of(shop: Shop) -> Iterator[retrieval_pb2.RetrieveRequest]:
    """What a ranker asks of retrieval, for one user after the other, without end."""
    for recent in itertools.cycle(shop.rows.users["recent"]["item"]):
        yield request_of("bench", recent[recent > 0], CANDIDATES, [], None, None)


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
    """Answers per second that callers of the ranker get who wait for theirs."""
    return _saturation(Loaded(ranker, "Recommend", lambda: requests_of(shop), DEADLINE_S))


def _saturation(loaded: Loaded) -> float:
    asked = closed_loop(
        loaded.service.grpc, loaded.method, loaded.requests(), calls=CALLS, callers=CALLERS
    )
    done = asyncio.run(asked)
    return len(done.latency_s) / done.wall_s


def _repeated(loaded: Loaded, say: Say) -> tuple[float, float, float, float]:
    about, name = _saturation(loaded), loaded.method
    steps = []
    for share in STEPS:
        steps.append(step(loaded, share * about, STEP_S))
        say(f"overload, {name}, {share:g} of {about:.0f}/s: {steps[-1]}")
    peak = max(steps, key=lambda one: one.good_per_s)
    beyond = step(loaded, OVERLOAD * peak.per_s, OVERLOAD_S)
    say(f"overload, {name}, {OVERLOAD:g} x {peak.per_s:.0f}/s: {beyond}")
    return (
        beyond.good_per_s / peak.good_per_s,
        beyond.p99_ms / peak.p99_ms,
        peak.good_per_s,
        beyond.p99_ms,
    )


def step(loaded: Loaded, per_s: float, seconds: float) -> Step:
    """Requests at a rate. Raises: MeasurementFailed if it is the generator that is at its limit."""
    own, began_s = psutil.Process(), time.perf_counter()
    before_s = sum(own.cpu_times()[:2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        calls = runner.run(
            open_loop(
                loaded.service.grpc,
                loaded.method,
                loaded.requests(),
                per_s=per_s,
                seconds=seconds,
                deadline_s=loaded.deadline_s,
            )
        )
    busy = (sum(own.cpu_times()[:2]) - before_s) / (time.perf_counter() - began_s)
    if busy > GENERATOR_MAX:
        raise MeasurementFailed(f"the generator used {busy:.0%} of its core")
    # Those that gRPC itself refuses (CANCELLED) have no hint.
    shed = calls.failed["RESOURCE_EXHAUSTED"] + calls.failed["UNAVAILABLE"]
    if calls.hinted < shed:
        raise MeasurementFailed(f"{shed - calls.hinted} refusals did not say when to come again")
    latency_ms = np.array(calls.latency_s) * 1_000
    good = int(np.count_nonzero(latency_ms <= loaded.deadline_s * 1_000)) - max(
        calls.degraded.values(), default=0
    )
    p99_ms = float(np.quantile(latency_ms, 0.99)) if len(latency_ms) else np.inf
    return Step(per_s, good / seconds, p99_ms, calls)
