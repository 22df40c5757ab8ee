"""A backlog of any size is worked off in bounded memory: nobody reads ahead without limit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from deploy.local.services import Ports
from rankstream.client import LogProducer
from rankstream.contracts.events import UserUpdate
from tests.services.features.embedded_service import Service
from tests.soak.soak import Plan, resident, settings
from tests.soak.traffic import Load

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EVENTS = 450_000
TEXT_BYTES = 1_500  # of an attribute, in hex: 500 events make a record of 1.5 MB
USERS = 40
RSS_MAX = 1_200_000_000
SAMPLE_S = 0.1


def backlog(now_ms: int) -> Iterator[UserUpdate]:
    """1.35 GB in records of 1.5 MB, of a few users, so that the state stays small."""
    rng = random.Random(5)
    for number in range(EVENTS):
        yield UserUpdate(
            event_id=str(UUID(int=number)),
            user_id=f"user-{number % USERS}",
            event_time_ms=now_ms,
            # Nothing that compresses well: a reader's limits are on the bytes that it fetches.
            attributes={"age": float(number % 90), "text": rng.randbytes(TEXT_BYTES).hex()},
        )


class Peak:
    """The largest resident memory of a process, and its children, while it is watched."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.rss_bytes = 0
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S) and self._process.is_running():
            self.rss_bytes = max(self.rss_bytes, resident(self._process))

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def test_a_backlog_larger_than_memory_may_be_is_folded(
    kafka_topics: str, clean_redis: str, tmp_path: Path
) -> None:
    plan = Plan(seconds=0, ttl_s=3_600, load=Load())
    port = Ports.free().features
    service = Service(settings(kafka_topics, clean_redis, tmp_path, port, plan), tmp_path / "log")
    with LogProducer(kafka_topics) as log:
        log.send(backlog(time.time_ns() // 1_000_000))

    service.start()
    assert service.process is not None
    peak = Peak(service.process.pid)
    try:
        service.wait(lambda counts: counts["events_lag"] == 0 and counts["folded"] == EVENTS, 240)
    finally:
        peak.stop()
        service.kill()

    assert peak.rss_bytes < RSS_MAX
