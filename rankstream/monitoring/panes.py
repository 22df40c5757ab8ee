"""A sliding window of event time, kept as a few summaries that merge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar


class Mergeable(Protocol):
    def merge(self, other: Self) -> Self: ...


S = TypeVar("S", bound=Mergeable)


class Panes(Generic[S]):
    """The last `count` panes of `pane_ms` each, by event time.

    What is older than the newest pane's window is refused, so all changes of one impression,
    which share its time, are kept or dropped together.
    """

    def __init__(self, *, pane_ms: int, count: int) -> None:
        assert min(pane_ms, count) > 0, "a window has a positive size"
        self._pane_ms = pane_ms
        self._count = count
        self._panes: dict[int, S] = {}
        self._newest = -1

    def add(self, time_ms: int, summary: S) -> bool:
        """Merge `summary` into the pane of `time_ms`; False if that pane has left the window."""
        pane = time_ms // self._pane_ms
        self.advance(time_ms)
        if pane <= self._newest - self._count:
            return False
        held = self._panes.get(pane)
        self._panes[pane] = summary if held is None else held.merge(summary)
        return True

    def advance(self, as_of_ms: int) -> None:
        """Drop the panes that have left the window by `as_of_ms`; never moves back."""
        newest = as_of_ms // self._pane_ms
        if newest <= self._newest:
            return
        self._newest = newest
        for pane in [pane for pane in self._panes if pane <= newest - self._count]:
            del self._panes[pane]

    def merged(self) -> S | None:
        """One summary of the whole window; None if it is empty."""
        whole: S | None = None
        for _, summary in self.items():
            whole = summary if whole is None else whole.merge(summary)
        return whole

    def items(self) -> Iterator[tuple[int, S]]:
        """Start in ms and summary of each pane, oldest first."""
        for pane in sorted(self._panes):
            yield pane * self._pane_ms, self._panes[pane]
