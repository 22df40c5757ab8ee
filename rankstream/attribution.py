"""Join clicks and purchases to the impressions that they follow, in event time.

A label belongs to (user, request, item). Its impression is the earliest one; a
click counts if it falls in [impression, impression + click window], a purchase
if it falls in [impression, impression + conversion window], ends included. The
value of a label is the sum of its purchases, each event_id once.

Feedback may come before its impression: it waits until the watermark has
passed it by the longest window and is then given up as unmatched. A label is
final once the watermark has passed its impression by the longest window; its
state is dropped then. A request shown again after that is a new label.

Counters count what labels count: repeats of an impression or of a click collapse
to the earliest. When an earlier one arrives later, the count moves to it, so that
the sums depend on the set of events and not on their order.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from rankstream.contracts.columns import Kind

ABSENT: Final = 0
PROVISIONAL: Final = 1
FINAL: Final = 2

# Feedback kept per label; more is counted by `overflow` and takes no part in the join.
FEEDBACK_PER_LABEL_MAX: Final = 256

_IMPRESSION: Final = int(Kind.IMPRESSION)
_CLICK: Final = int(Kind.CLICK)

Key: TypeAlias = tuple[str, str, str]  # user_id, request_id, item_id


class Feedback(NamedTuple):
    """A click or purchase that names a request, and where the log holds it."""

    time_ms: int
    kind: int
    value_micros: int
    event_id: bytes
    offset: int
    row: int


class LabelState(NamedTuple):
    """What is known of a label; `value_micros` is the sum of its purchases."""

    status: int = ABSENT
    clicked: int = 0
    purchased: int = 0
    value_micros: int = 0


class LabelChange(NamedTuple):
    """A label became `new`; it was `old` before."""

    key: Key
    impression_time_ms: int
    position: int
    old: LabelState
    new: LabelState


class Unmatched(NamedTuple):
    """Feedback that no impression precedes by at most the longest window."""

    key: Key
    feedback: Feedback


# What an impression or click adds to the counters: key, category, time, kind, and
# count: 1, or 0 for a repeat, or -1 where an earlier one takes the place of this.
Counted: TypeAlias = tuple[Key, str, int, int, int]

# user, request, item, kind, time, position, category, value in micros, event_id, row in the record
FeedbackRow: TypeAlias = tuple[str, str, str, int, int, int, str, int, bytes, int]


@dataclass(slots=True)
class Closed:
    """Label changes since the last call, and the feedback given up."""

    changes: list[LabelChange]
    unmatched: list[Unmatched]


_UNSEEN: Final = LabelState()


class _Open:
    """State of one key; `impression` and `click` are the earliest that were seen."""

    __slots__ = ("anchor_ms", "click", "emitted", "feedback", "impression")

    def __init__(self, anchor_ms: int) -> None:
        self.anchor_ms = anchor_ms  # of the impression, else of the earliest feedback
        self.impression: tuple[int, int, str] | None = None  # time, position, category
        self.click: tuple[int, str] | None = None  # time, category
        self.feedback: Sequence[Feedback] = ()
        self.emitted = _UNSEEN


class Attribution:
    """Open labels of one partition.

    Memory: about 0.6 kB for each impression of the longest window and the lateness;
    at most FEEDBACK_PER_LABEL_MAX feedback events each.
    """

    def __init__(self, *, click_window_ms: int, conversion_window_ms: int) -> None:
        self._click_window_ms = click_window_ms
        self._conversion_window_ms = conversion_window_ms
        self._horizon_ms = max(click_window_ms, conversion_window_ms)
        self._open: dict[Key, _Open] = {}
        self._due: list[tuple[int, Key]] = []  # heap; an entry may be early, never late
        self._touched: dict[Key, _Open] = {}
        self.overflow = 0

    def __len__(self) -> int:
        return len(self._open)

    def fold(self, events: Iterable[FeedbackRow], *, offset: int) -> list[Counted]:
        """Take in impressions, clicks and purchases that name a request, of one record.

        None is behind the watermark and none was folded before. Returns what
        impressions and clicks add to the counters.
        """
        counted: list[Counted] = []
        opened, touched, due = self._open, self._touched, self._due
        for user, request, item, kind, time_ms, position, category, micros, event_id, row in events:
            key = (user, request, item)
            state = opened.get(key)
            if state is None:
                state = opened[key] = _Open(time_ms)
                heapq.heappush(due, (time_ms, key))
            touched[key] = state
            if kind == _IMPRESSION:
                if state.impression is None and time_ms == state.anchor_ms:
                    state.impression = (time_ms, position, category)
                    counted.append((key, category, time_ms, _IMPRESSION, 1))
                else:
                    counted += self._show(key, state, (time_ms, position, category))
                continue
            if kind == _CLICK:
                counted += _click(key, state, (time_ms, category))
            if len(state.feedback) >= FEEDBACK_PER_LABEL_MAX:
                self.overflow += 1
                continue
            feedback = Feedback(time_ms, kind, micros, event_id, offset, row)
            state.feedback = [*state.feedback, feedback]
            if state.impression is None and time_ms < state.anchor_ms:
                self._anchor(key, state, time_ms)
        return counted

    def _show(self, key: Key, state: _Open, shown: tuple[int, int, str]) -> tuple[Counted, ...]:
        time_ms, _, category = shown
        known = state.impression
        if known is not None and known <= shown:
            return ((key, category, time_ms, _IMPRESSION, 0),)
        state.impression = shown
        if time_ms != state.anchor_ms:
            self._anchor(key, state, time_ms)
        arrival = (key, category, time_ms, _IMPRESSION, 1)
        if known is None:
            return (arrival,)
        return ((key, known[2], known[0], _IMPRESSION, -1), arrival)

    def _anchor(self, key: Key, state: _Open, time_ms: int) -> None:
        if time_ms < state.anchor_ms:
            heapq.heappush(self._due, (time_ms, key))
        state.anchor_ms = time_ms

    def close(self, watermark_ms: int) -> Closed:
        """Changes of labels since the last call, final ones included, and what was given up."""
        closed = Closed([], [])
        for key, state in self._touched.items():
            self._emit(key, state, watermark_ms, closed)
        self._touched.clear()
        for key, state in self._expire(watermark_ms):
            self._emit(key, state, watermark_ms, closed)
            closed.unmatched += [
                Unmatched(key, feedback)
                for feedback in sorted(state.feedback)
                if not self._follows(state, feedback)
            ]
        return closed

    def _expire(self, watermark_ms: int) -> list[tuple[Key, _Open]]:
        due, opened = self._due, self._open
        last_closed_ms = watermark_ms - self._horizon_ms
        expired: list[tuple[Key, _Open]] = []
        while due and due[0][0] < last_closed_ms:
            anchor_ms, key = heapq.heappop(due)
            state = opened.get(key)
            if state is None:
                continue
            if state.anchor_ms > anchor_ms:
                heapq.heappush(due, (state.anchor_ms, key))
                continue
            expired.append((key, opened.pop(key)))
        expired.sort(key=lambda entry: (entry[1].anchor_ms, entry[0]))
        return expired

    def _follows(self, state: _Open, feedback: Feedback) -> bool:
        if state.impression is None:
            return False
        return 0 <= feedback.time_ms - state.impression[0] <= self._horizon_ms

    def _emit(self, key: Key, state: _Open, watermark_ms: int, closed: Closed) -> None:
        if state.impression is None:
            return
        time_ms, position, _ = state.impression
        status = FINAL if time_ms + self._horizon_ms < watermark_ms else PROVISIONAL
        if state.feedback:
            new = self._judge(status, time_ms, state.feedback)
        else:
            new = _SHOWN if status == PROVISIONAL else _IGNORED
        if new != state.emitted:
            closed.changes.append(LabelChange(key, time_ms, position, state.emitted, new))
            state.emitted = new

    def _judge(self, status: int, time_ms: int, feedback: Sequence[Feedback]) -> LabelState:
        clicked = purchased = value_micros = 0
        for entry in feedback:
            after_ms = entry.time_ms - time_ms
            if entry.kind == _CLICK:
                if 0 <= after_ms <= self._click_window_ms:
                    clicked = 1
            elif 0 <= after_ms <= self._conversion_window_ms:
                purchased = 1
                value_micros += entry.value_micros
        return LabelState(status, clicked, purchased, value_micros)

    def dump(self) -> bytes:
        """The open labels, to go on from with `load`; call it after `close`."""
        assert not self._touched
        entries = [
            [
                key,
                state.anchor_ms,
                state.impression,
                state.click,
                [(*f[:3], f.event_id.hex(), *f[4:]) for f in state.feedback],
                state.emitted,
            ]
            for key, state in self._open.items()
        ]
        return json.dumps([self.overflow, entries], separators=(",", ":")).encode()

    def load(self, dump: bytes) -> None:
        """Replace the state by a dumped one."""
        self.overflow, entries = json.loads(dump)
        self._open.clear()
        self._touched.clear()
        for key, anchor_ms, impression, click, feedback, emitted in entries:
            state = self._open[tuple(key)] = _Open(anchor_ms)
            state.impression = tuple(impression) if impression else None
            state.click = tuple(click) if click else None
            state.feedback = [
                Feedback(time_ms, kind, micros, bytes.fromhex(event_id), offset, row)
                for time_ms, kind, micros, event_id, offset, row in feedback
            ]
            state.emitted = LabelState(*emitted)
        self._due = [(state.anchor_ms, key) for key, state in self._open.items()]
        heapq.heapify(self._due)


_SHOWN: Final = LabelState(PROVISIONAL)
_IGNORED: Final = LabelState(FINAL)


def _click(key: Key, state: _Open, clicked: tuple[int, str]) -> tuple[Counted, ...]:
    time_ms, category = clicked
    known = state.click
    if known is not None and known <= clicked:
        return ((key, category, time_ms, _CLICK, 0),)
    state.click = clicked
    arrival = (key, category, time_ms, _CLICK, 1)
    if known is None:
        return (arrival,)
    return ((key, known[1], known[0], _CLICK, -1), arrival)
