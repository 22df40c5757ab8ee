"""Run the features service under churn, and sample its memory and what it holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis

from tests.services.features.embedded_service import Service
from tests.soak.traffic import Load, Sender, users_made
from tests.soak.verdict import GROWTH_BYTES, Sample, Verdict, judge

SAMPLE_S = 1.0
# Hashes and partitions are remembered for so many keys: bounded, and not full at first.
CACHED_USERS = 1 << 17
CACHED_ITEMS = 1 << 14
READY_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How long, and after how much event time without events a key may go.

    Event time passes `speed` times as fast as the clock, and has caught up with it at the end.
    """

    seconds: float
    ttl_s: float
    load: Load
    speed: float = 1.0
    growth_bytes: int = GROWTH_BYTES

    @property
    def warm_up_s(self) -> float:
        """By then as many keys leave as come and caches of keys are full; half the run at most."""
        users_s = CACHED_USERS / self.load.users_per_s
        items_s = CACHED_ITEMS / self.load.items_per_s
        keys_s = 3 * self.ttl_s / self.speed + 15
        return min(self.seconds / 2, max(keys_s, users_s + 60, items_s + 60))


def settings(kafka_url: str, redis_url: str, folder: Path, port: int, plan: Plan) -> dict[str, str]:
    """Variables of the service: short windows, so that what waits for them is small."""
    values = {
        "PORT": str(port),
        "KAFKA_URL": kafka_url,
        "REDIS_URL": redis_url,
        "SNAPSHOTS": str(folder / "snapshots"),
        "SNAPSHOT_EVERY_S": "20",
        "LAKE": str(folder / "lake"),
        "LATENESS_MS": "2000",
        "DEDUPE_MS": "2000",
        "CLICK_WINDOW_MS": "3000",
        "CONVERSION_WINDOW_MS": "4000",
        "SESSION_GAP_MS": "3000",
        "STATE_TTL_MS": str(round(plan.ttl_s * 1000)),
    }
    return {f"FEATURES_{name}": value for name, value in values.items()}


def event_clock(plan: Plan) -> Callable[[], int]:
    """The event time of now."""
    began_ms = time.time_ns() // 1_000_000
    first_ms = began_ms - (plan.speed - 1) * 1_000 * plan.seconds

    def now_ms() -> int:
        return round(first_ms + plan.speed * (time.time_ns() // 1_000_000 - began_ms))

    return now_ms


def run(
    kafka_url: str,
    redis_url: str,
    folder: Path,
    port: int,
    plan: Plan,
    *,
    progress: Callable[[Sample], None] = lambda sample: None,
) -> Verdict:
    """Soak the service; Kafka has the topics, and nothing else runs on it and on Redis."""
    environ = settings(kafka_url, redis_url, folder, port, plan)
    service = Service(environ, folder / "features.log")
    service.start()
    try:
        service.wait(lambda counts: bool(counts["partitions"]), READY_S)
        sender = Sender(kafka_url, plan.load, now_ms=event_clock(plan))
        sender.start()
        try:
            samples = _samples(service, redis_url, plan.seconds, progress)
        finally:
            sender.stop()
        assert service.stop() == 0
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
    made = users_made(plan.load, samples[-1].at_s)
    return judge(
        samples,
        warm_up_s=plan.warm_up_s,
        users_made=made,
        growth_bytes=plan.growth_bytes,
    )


def resident(process: psutil.Process) -> int:
    """Bytes of a process and its children in memory."""
    found = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found += child.memory_info().rss
    return int(found)


def _samples(
    service: Service, redis_url: str, seconds: float, progress: Callable[[Sample], None]
) -> list[Sample]:
    assert service.process is not None
    process, began_s = psutil.Process(service.process.pid), time.monotonic()
    samples: list[Sample] = []
    with redis.Redis.from_url(redis_url) as client:
        while (at_s := time.monotonic() - began_s) < seconds:
            assert service.process.poll() is None, service.log.read_text()[-4_000:]
            counts = service.counts()
            samples.append(
                Sample(
                    at_s=at_s,
                    rss_bytes=resident(process),
                    users=_held(counts.get("partitions", {}).values(), "users"),
                    items=_held(counts.get("items", {}).values(), "items"),
                    redis_keys=client.dbsize(),
                )
            )
            progress(samples[-1])
            time.sleep(SAMPLE_S)
    return samples


def _held(partitions: Iterable[dict[str, Any]], part: str) -> int:
    return sum(partition.get(part, 0) for partition in partitions)
