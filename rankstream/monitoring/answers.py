"""How many answers were whole, and what the others lacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Answers:
    """Slates, those that were degraded, and how many lacked what (a slate may lack several)."""

    slates: int
    degraded: int
    reasons: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, reasons_of_slates: Iterable[Iterable[str]]) -> Self:
        """Summary of the `degraded` lists of some slates; an empty list is a whole answer."""
        slates, degraded = 0, 0
        counted: Counter[str] = Counter()
        for reasons in reasons_of_slates:
            named = set(reasons)
            slates += 1
            degraded += bool(named)
            counted.update(named)
        return cls(slates, degraded, tuple(sorted(counted.items())))

    def merge(self, other: Self) -> Self:
        counted = Counter(dict(self.reasons)) + Counter(dict(other.reasons))
        return type(self)(
            self.slates + other.slates,
            self.degraded + other.degraded,
            tuple(sorted(counted.items())),
        )

    @property
    def degraded_share(self) -> float | None:
        """Share of slates that lacked something, in [0, 1]; None without slates."""
        return self.degraded / self.slates if self.slates else None
