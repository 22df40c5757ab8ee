"""Which keys' rows changed."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field


@dataclass
class Touched:
    """Keys that changed and keys that were forgotten after that: each is in one of the two."""

    changed: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)

    def change(self, keys: Set[str]) -> None:
        """Note keys that have changed now."""
        self.changed |= keys
        self.expired -= keys

    def expire(self, keys: Set[str]) -> None:
        """Note keys that have been forgotten now."""
        self.changed -= keys
        self.expired |= keys

    def follow(self, later: Touched) -> None:
        """Note what has come of some more records."""
        self.change(later.changed)
        self.expire(later.expired)

    def clear(self) -> None:
        """Nothing is left."""
        self.changed.clear()
        self.expired.clear()
