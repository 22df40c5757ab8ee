"""What goes wrong in a run, and when: a function of the seed.

A fault falls due at a share of the log that the workers have committed, not at a time: a slow
machine meets the same faults at the same places.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

KILL: Final = "kill -9 of a worker"
JOIN: Final = "a second worker joins"
LEAVE: Final = "the second worker leaves"
BROKER: Final = "broker killed, restarted"
REDIS: Final = "Redis killed, restarted"
DISK: Final = "snapshot disk full"
FIRST_SHARE: Final = 0.03
LAST_SHARE: Final = 0.95
RESTART_S_MAX: Final = 1.0


@dataclass(frozen=True)
class Fault:
    """`share` of the log committed when it happens; `draw` in [0, 1) picks among victims."""

    kind: str
    share: float
    draw: float
    restart_s: float  # how long a killed worker stays away


def plan(seed: int, *, kills: int, moves: int) -> list[Fault]:
    """So many kills, so many joins and leaves in turn, and one of each other fault, in order."""
    rng = Random(seed)
    kinds = [KILL] * kills + [JOIN] * moves + [BROKER, REDIS, DISK]
    rng.shuffle(kinds)
    step = (LAST_SHARE - FIRST_SHARE) / len(kinds)
    joined = False
    found = []
    for number, drawn in enumerate(kinds):
        kind = drawn
        if drawn == JOIN:
            kind = LEAVE if joined else JOIN
            joined = not joined
        share = FIRST_SHARE + step * (number + rng.random())
        found.append(Fault(kind, share, rng.random(), rng.random() * RESTART_S_MAX))
    return found
