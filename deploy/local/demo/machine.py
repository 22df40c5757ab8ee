"""Who had the processors while people asked: the system, others, or the host of this machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class CpuSeen:
    """Seconds of processors since some start, and when they were read, in seconds."""

    at: float
    system: float
    busy: float  # whoever it was
    stolen: float  # given to other machines of the host; known on Linux only


@dataclass(frozen=True)
class Cores:
    """Processors that were used on average, of how many there are."""

    system: float
    others: float
    stolen: float
    all: int


def cpu_seen(system_s: float) -> CpuSeen:
    """What the machine says now; `system_s` is what the system's processes have used."""
    times = psutil.cpu_times()
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return CpuSeen(time.monotonic(), system_s, busy, getattr(times, "steal", 0.0))


def cores_used(before: CpuSeen, after: CpuSeen) -> Cores:
    """The processors that were used between two readings."""
    seconds = after.at - before.at
    system = (after.system - before.system) / seconds
    return Cores(
        system=system,
        others=max(0.0, (after.busy - before.busy) / seconds - system),
        stolen=(after.stolen - before.stolen) / seconds,
        all=os.cpu_count() or 1,
    )
