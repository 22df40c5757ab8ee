"""Labels meet the slates that they judge: a join by (request_id, item_id) with bounded memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rankstream.contracts.ids import id64


class Group(NamedTuple):
    """Who answered: calibration is kept per group."""

    model_id: str
    variant: str


class LabelChange(NamedTuple):
    """What one row of a LabelBatch adds: new minus old, each 1, 0 or -1.

    `seen_ms` is when the log took the record: what is known of a click by then.
    """

    request_id: str
    item_id: str
    impression_time_ms: int
    seen_ms: int
    impressions: int
    clicks: int


class Joined(NamedTuple):
    """A label change beside the prediction that it judges.

    `shown_ms` is when the log took the first label of this impression: the same for all changes
    of it, so they fall into one pane, and `seen_ms - shown_ms` is how long a click took, free of
    what holds up all labels alike.
    """

    group: Group
    pctr: float
    shown_ms: int
    change: LabelChange


@dataclass
class JoinCounts:
    """Totals since start. `early` changes waited for their slate; `unmatched` never met it."""

    joined: int = 0
    early: int = 0
    unmatched: int = 0
    slates_expired: int = 0
    slates_evicted: int = 0


@dataclass(slots=True)
class _Slate:
    served_time_ms: int
    group: Group
    items: array[int]  # id64 of each item, 8 bytes
    pctr: array[float]  # float32
    shown_ms: array[int]  # of each item; 0 before its first label


class SlateJoin:
    """Slates of the last `window_ms`, at most `slates_max`, and at most `early_max` label changes
    that came before their slate.

    A slate of 20 items takes about 900 bytes. Slates and labels come from two topics, so either
    may be first; what is dropped for time or for space is counted, never silent.
    """

    def __init__(self, *, window_ms: int, slates_max: int, early_max: int) -> None:
        self._window_ms = window_ms
        self._slates_max = slates_max
        self._early_max = early_max
        # Both in order of arrival, so the oldest is first.
        self._slates: dict[str, _Slate] = {}
        self._early: dict[str, list[LabelChange]] = {}
        self._early_total = 0
        self._as_of_ms = 0
        self.counts = JoinCounts()

    @property
    def slates(self) -> int:
        """Slates held now."""
        return len(self._slates)

    @property
    def early(self) -> int:
        """Label changes that wait for their slate now."""
        return self._early_total

    def serve(
        self,
        request_id: str,
        served_time_ms: int,
        group: Group,
        item_ids: Sequence[str],
        pctr: Sequence[float],
    ) -> list[Joined]:
        """Remember a slate; returns the label changes that had waited for it.

        A request_id that is already held keeps its first slate.
        """
        if request_id in self._slates:
            return []
        slate = _Slate(
            served_time_ms,
            group,
            array("Q", map(id64, item_ids)),
            array("f", pctr),
            array("q", bytes(8 * len(item_ids))),
        )
        self._slates[request_id] = slate
        waited = self._early.pop(request_id, [])
        self._early_total -= len(waited)
        if len(self._slates) > self._slates_max:
            del self._slates[next(iter(self._slates))]
            self.counts.slates_evicted += 1
        return [joined for change in waited if (joined := self._match(slate, change))]

    def label(self, change: LabelChange) -> Joined | None:
        """The change beside its prediction; None if it has to wait or the item was not served."""
        slate = self._slates.get(change.request_id)
        if slate is not None:
            return self._match(slate, change)
        if change.impression_time_ms <= self._as_of_ms - self._window_ms:
            self.counts.unmatched += 1
            return None
        self._early.setdefault(change.request_id, []).append(change)
        self._early_total += 1
        self.counts.early += 1
        while self._early_total > self._early_max:
            self._drop_oldest_early()
        return None

    def advance(self, as_of_ms: int) -> None:
        """Forget slates and waiting labels older than the window at `as_of_ms`."""
        self._as_of_ms = max(self._as_of_ms, as_of_ms)
        oldest = self._as_of_ms - self._window_ms
        while self._slates:
            request_id = next(iter(self._slates))
            if self._slates[request_id].served_time_ms > oldest:
                break
            del self._slates[request_id]
            self.counts.slates_expired += 1
        while self._early and next(iter(self._early.values()))[0].impression_time_ms <= oldest:
            self._drop_oldest_early()

    def _match(self, slate: _Slate, change: LabelChange) -> Joined | None:
        try:
            slot = slate.items.index(id64(change.item_id))
        except ValueError:
            self.counts.unmatched += 1
            return None
        self.counts.joined += 1
        slate.shown_ms[slot] = slate.shown_ms[slot] or change.seen_ms
        return Joined(slate.group, slate.pctr[slot], slate.shown_ms[slot], change)

    def _drop_oldest_early(self) -> None:
        dropped = self._early.pop(next(iter(self._early)))
        self._early_total -= len(dropped)
        self.counts.unmatched += len(dropped)
