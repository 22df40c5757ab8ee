"""kill -9 of a worker that holds a million users, while events keep coming.

Another process is started at once, as a supervisor would. It gets the partitions when the group has
detected the loss, which the session timeout decides; what counts from there is the loading of the
snapshots and the replay of what came after them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.stream.errors import MeasurementFailed
from bench.stream.keys import filled, usual
from bench.stream.pace import Pacer
from bench.stream.servers import Servers
from bench.stream.worker import Progress, Worker, start
from rankstream import topics

EVENTS_PER_S: Final = 4_000
# Longer than the time between two snapshots, 60 s by default.
BEFORE_S: Final = 75.0
AFTER_S_MAX: Final = 120.0
POLL_S: Final = 0.005


@dataclass(frozen=True)
class Recovery:
    """Of one kill, seconds."""

    detected_s: float  # from the kill until the first partition has been claimed anew
    first_s: float  # from there to the first new commit
    all_s: float  # from there until every partition has a new commit


def recoveries(servers: Servers, users: int, kills: int) -> list[Recovery]:
    """Kill, measure, go on, and kill again."""
    with filled(servers, users) as worker:
        seconds = (BEFORE_S + AFTER_S_MAX) * kills
        end_ms = time.time_ns() // 1_000_000
        load = iter(usual(users, round(EVENTS_PER_S * seconds), end_ms=end_ms))
        pacer = Pacer(servers.kafka, topics.EVENTS.name, load, EVENTS_PER_S)
        found, running = [], worker
        try:
            for number in range(kills):
                _run(pacer, BEFORE_S)
                killed_s = time.monotonic()
                running.kill()
                running = start(servers, f"heir-{number}")
                found.append(_recovered(servers, running, pacer, killed_s))
        finally:
            running.stop()
            pacer.close()
        return found


def _run(pacer: Pacer, seconds: float) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        _step(pacer)


def _step(pacer: Pacer) -> None:
    if not pacer.step():
        raise MeasurementFailed("the load came to its end before the measurement")
    pacer.acknowledged.clear()
    time.sleep(POLL_S)


def _recovered(servers: Servers, heir: Worker, pacer: Pacer, killed_s: float) -> Recovery:
    with servers.redis() as client:
        progress = Progress(client)
        owners, before = progress.owners(), progress.users()
        claimed_s = first_s = 0.0
        while time.monotonic() < killed_s + AFTER_S_MAX:
            _step(pacer)
            servers.processes.require_running(heir.record)
            now, now_s = progress.users(), time.monotonic()
            if not claimed_s and _changed(progress.owners(), owners):
                claimed_s = now_s
            moved = [follows > old for follows, old in zip(now, before, strict=True)]
            if not first_s and any(moved):
                first_s = now_s
            if all(moved):
                claimed_s = claimed_s or first_s
                return Recovery(claimed_s - killed_s, first_s - claimed_s, now_s - claimed_s)
    raise MeasurementFailed(f"not every partition was written again within {AFTER_S_MAX:g} s")


def _changed(now: Sequence[str], before: Sequence[str]) -> bool:
    return any(own != old for own, old in zip(now, before, strict=True))
