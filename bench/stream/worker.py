"""The features service as a user runs it, and how far it has come, read from outside.

Progress is what Redis says: the offset keys that the service writes in the transaction of the rows.
Asking the service itself would cost the processor time that is measured.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import redis

from bench.stream.errors import MeasurementFailed
from bench.stream.servers import PARTITIONS, ROOT, Servers, ends
from deploy.local.processes import Record, Spec
from deploy.local.services import COMMON, Ports
from rankstream import topics
from rankstream.adapters.redis_rows import offset_key
from services.features.commit import parse_offsets

READY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 120.0
STALL_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.02
READY_POLL_S: Final = 0.2
TARGETS: Final = topics.FEATURE_UPDATES.partitions


@dataclass(frozen=True)
class Span:
    """What was folded between two moments, and what it took."""

    records: int
    cpu_s: float  # of the workers, user and system, children included
    wall_s: float
    busy_cores: float  # of the machine: Kafka, Redis, this and whatever else is at work


@dataclass
class Worker:
    """One process of the service."""

    servers: Servers
    record: Record
    port: int

    def cpu_s(self) -> float:
        """User and system time since it started, children included."""
        process = psutil.Process(self.record.pid)
        times = process.cpu_times()
        living = sum(sum(child.cpu_times()[:2]) for child in process.children(recursive=True))
        ended = times.children_user + times.children_system
        return float(times.user + times.system + ended + living)

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.record.pid).memory_info().rss)

    def counts(self) -> dict[str, Any]:
        """GET /v1/counts; empty while nothing listens."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/v1/counts", timeout=30)
        except httpx.TransportError:
            return {}
        counts: dict[str, Any] = answer.json()
        return counts

    def metrics(self) -> str:
        """GET /metrics."""
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=30).text

    def await_ready(self, partitions: int = PARTITIONS) -> None:
        """Return once it is caught up and owns so many partitions of `events`."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        counts: dict[str, Any] = {}
        while time.monotonic() < deadline:
            self.servers.processes.require_running(self.record)
            counts = self.counts()
            if counts.get("caught_up") and len(counts["partitions"]) == partitions:
                return
            time.sleep(READY_POLL_S)
        raise MeasurementFailed(f"no {partitions} partitions in {READY_TIMEOUT_S:g} s: {counts}")

    def stop(self) -> None:
        """SIGTERM: it writes its snapshots and leaves the group."""
        self.servers.processes.stop(self.record)

    def kill(self) -> None:
        """kill -9."""
        psutil.Process(self.record.pid).kill()
        self.servers.processes.stop(self.record)


def start(
    servers: Servers,
    name: str = "features",
    settings: Mapping[str, str] | None = None,
    profile: Path | None = None,
) -> Worker:
    """Start one worker and return at once. FEATURES_ variables of ours reach it, too."""
    port = Ports.free().features
    environ = {
        "FEATURES_PORT": str(port),
        "FEATURES_KAFKA_URL": servers.kafka,
        "FEATURES_REDIS_URL": servers.redis_url,
        "FEATURES_SNAPSHOTS": str(servers.folder / "snapshots"),
        "FEATURES_LAKE": str(servers.folder / "lake"),
        **{f"FEATURES_{key}": value for key, value in (settings or {}).items()},
    }
    profiled = ("-m", "cProfile", "-o", str(profile)) if profile else ()
    command = (sys.executable, *profiled, "-m", "services.features")
    spec = Spec(name, command, {**COMMON, **environ}, ROOT, (port,), STOP_TIMEOUT_S)
    return Worker(servers, servers.processes.start(spec), port)


class Progress:
    """Committed offsets, as Redis has them."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._users = [offset_key("users", p) for p in range(PARTITIONS)]
        self._items = [offset_key("items", p) for p in range(TARGETS)]

    def users(self) -> list[int]:
        """The offset to go on from, of each partition of `events`."""
        return [next(iter(offsets), 0) for offsets, _ in self._read(self._users)]

    def items(self) -> list[int]:
        """The offset to go on from, of each partition of `feature-updates`."""
        return [next(iter(offsets), 0) for offsets, _ in self._read(self._items)]

    def owners(self) -> list[str]:
        """Who has claimed each partition of `events`."""
        return [owner for _, owner in self._read(self._users)]

    def _read(self, keys: Sequence[bytes]) -> list[tuple[tuple[int, ...], str]]:
        stored: Any = self._client.mget(keys)
        return [parse_offsets(value) for value in stored]


def drained(
    servers: Servers, workers: Sequence[Worker], log_ends: Sequence[int], already: int = 0
) -> Span:
    """Wait until both stages have committed all; what it took from the first commit on.

    `already`: records of `events` that were committed before this load came.

    Raises: MeasurementFailed if nothing is committed for a while, or a worker ends.
    """
    with servers.redis() as client:
        progress = Progress(client)
        at = _until(workers, progress.users, lambda now: sum(now) > already)
        first_s, first_busy_s = time.monotonic(), _busy_s()
        first_cpu_s = sum(worker.cpu_s() for worker in workers)
        _until(workers, progress.users, lambda now: _reached(now, log_ends))
        # Complete by now: a stage commits after Kafka has acknowledged what it has sent.
        update_ends = ends(servers, topics.FEATURE_UPDATES.name)
        _until(workers, progress.items, lambda now: _reached(now, update_ends))
        wall_s = time.monotonic() - first_s
        return Span(
            sum(log_ends) - sum(at),
            sum(worker.cpu_s() for worker in workers) - first_cpu_s,
            wall_s,
            (_busy_s() - first_busy_s) / wall_s,
        )


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _reached(now: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(have >= want for have, want in zip(now, wanted, strict=True))


def _until(
    workers: Sequence[Worker], read: Callable[[], list[int]], holds: Callable[[list[int]], bool]
) -> list[int]:
    now, moved_s = read(), time.monotonic()
    while not holds(now):
        if time.monotonic() > moved_s + STALL_TIMEOUT_S:
            raise MeasurementFailed(f"nothing was committed for {STALL_TIMEOUT_S:g} s after {now}")
        for worker in workers:
            worker.servers.processes.require_running(worker.record)
        time.sleep(POLL_S)
        before, now = now, read()
        if now != before:
            moved_s = time.monotonic()
    return now
