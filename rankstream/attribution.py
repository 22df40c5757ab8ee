"""Join clicks and purchases to the impressions that they follow, in event time.

A label belongs to (user, request, item). Its impression is the earliest one; a
click counts if it falls in [impression, impression + click window], a purchase
if it falls in [impression, impression + conversion window], ends included. The
value of a label is the sum of its purchases, each event_id once.

Feedback may come before its impression: it waits until the watermark has
passed it by the longest window and is then given up as unmatched. A label is
final once the watermark has passed its impression by the longest window; its
state is dropped then. A request shown again after that is a new label.

Repeats of an impression or of a click count once, at the earliest. When an earlier
one arrives later, the count moves to it: sums do not depend on the order of events.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from rankstream.contracts.columns import Kind
from rankstream.contracts.labels import (
    FINAL,
    PROVISIONAL,
    Attributed,
    Feedback,
    FeedbackColumns,
    Key,
    LabelChange,
    LabelState,
    Moved,
    Named,
    Shown,
    Unmatched,
)

# Feedback kept per label; more is counted by `overflow` and takes no part in the join.
FEEDBACK_PER_LABEL_MAX: Final = 256

_IMPRESSION: Final = int(Kind.IMPRESSION)
_CLICK: Final = int(Kind.CLICK)

_UNSEEN: Final = LabelState()
_SHOWN: Final = LabelState(PROVISIONAL)
_IGNORED: Final = LabelState(FINAL)
# Labels wait by bucket of their anchor's time; only the bucket at hand is kept in order.
_BUCKET_MS: Final = 60_000
# Of a label in a LabelBatch, without its names.
_LABEL_BYTES: Final = 80
# Of a dumped label: its key and what its impression names.
_TEXTS: Final = 6


class _Open:
    """State of a key with feedback or repeats; `impression` and `click` are the earliest seen."""

    __slots__ = ("anchor_ms", "click", "emitted", "feedback", "impression")

    def __init__(self, anchor_ms: int, impression: Shown | None, emitted: LabelState) -> None:
        self.anchor_ms = anchor_ms  # of the impression, else of the earliest feedback
        self.impression = impression
        self.click: tuple[int, Named] | None = None  # event time, what it names
        self.feedback: Sequence[Feedback] = ()
        self.emitted = emitted


class Attribution:
    """Open labels of one partition.

    Memory: about 0.5 kB for each impression of the longest window and the lateness.

    One fold closes labels up to `closed_bytes_max`, as their record will hold them, and at least
    one; the others wait for the next. What becomes of a label does not depend on it.
    """

    def __init__(
        self,
        *,
        click_window_ms: int,
        conversion_window_ms: int,
        closed_bytes_max: float = math.inf,
    ) -> None:
        self._closed_bytes_max = closed_bytes_max
        self._click_window_ms = click_window_ms
        self._conversion_window_ms = conversion_window_ms
        self._horizon_ms = max(click_window_ms, conversion_window_ms)
        # A label that was shown once and nothing else is just that: most are.
        self._open: dict[Key, _Open | Shown] = {}
        self._later: dict[int, list[Key]] = {}  # bucket -> keys, some no longer due then
        self._due: list[tuple[int, Key]] = []  # heap of buckets up to _bucket
        self._bucket = -1
        self.overflow = 0

    def __len__(self) -> int:
        return len(self._open)

    def fold(self, events: FeedbackColumns, watermark_ms: int) -> Attributed:
        """Take in events, none folded before, then close what the watermark has passed."""
        out = Attributed([], [], [], [], [])
        opened = self._open
        touched: dict[Key, _Open] = {}
        fresh: dict[Key, int] = {}
        bucket = -1
        wait: Callable[[Key], object] = self._enter
        for place, (key, kind, shown) in enumerate(
            zip(events.keys, events.kinds, events.shown, strict=True)
        ):
            if kind == _IMPRESSION and key not in opened:
                opened[key] = shown
                fresh[key] = place
                if shown[0] // _BUCKET_MS != bucket:
                    bucket = shown[0] // _BUCKET_MS
                    wait = self._wait(bucket)
                wait(key)
                continue
            state = self._touch(key, shown[0], events.watermarks_ms[place], touched, fresh, out)
            touched[key] = state
            if kind == _IMPRESSION:
                self._show(key, state, shown, place, out)
                continue
            if kind == _CLICK:
                _click(key, state, shown, place, out)
            feedback = Feedback(
                shown[0],
                kind,
                events.value_micros[place],
                events.event_ids[place],
                events.offsets[place],
                events.rows[place],
            )
            self._attach(key, state, feedback)
        out.opened += fresh.values()
        for key, state in touched.items():
            self._emit(key, state, watermark_ms, out)
        for key, closed in self._expire(watermark_ms):
            self._end(key, closed, watermark_ms, out)
        return out

    def _wait(self, bucket: int) -> Callable[[Key], object]:
        """Takes the keys that fall due in a bucket."""
        if bucket > self._bucket:
            return self._later.setdefault(bucket, []).append
        return self._enter

    def _enter(self, key: Key) -> None:
        heapq.heappush(self._due, (_anchor_ms(self._open[key]), key))

    def _touch(
        self,
        key: Key,
        time_ms: int,
        watermark_ms: int,
        touched: dict[Key, _Open],
        fresh: dict[Key, int],
        out: Attributed,
    ) -> _Open:
        """The state that an event at `time_ms` falls on; one that is due has ended before."""
        state = self._open.get(key)
        if state is not None and _anchor_ms(state) < watermark_ms - self._horizon_ms:
            if key in fresh:
                out.opened.append(fresh.pop(key))
            touched.pop(key, None)
            del self._open[key]
            self._end(key, state, watermark_ms, out)
            state = None
        if state is None:
            state = self._open[key] = _Open(time_ms, None, _UNSEEN)
            self._wait(time_ms // _BUCKET_MS)(key)
        elif isinstance(state, tuple):
            emitted = _UNSEEN if fresh.pop(key, None) is not None else _SHOWN
            state = self._open[key] = _Open(state[0], state, emitted)
        return state

    def _attach(self, key: Key, state: _Open, feedback: Feedback) -> None:
        if len(state.feedback) >= FEEDBACK_PER_LABEL_MAX:
            self.overflow += 1
            return
        state.feedback = [*state.feedback, feedback]
        if state.impression is None and feedback.time_ms < state.anchor_ms:
            self._anchor(key, state, feedback.time_ms)

    def _show(self, key: Key, state: _Open, shown: Shown, place: int, out: Attributed) -> None:
        known = state.impression
        if known is not None and known <= shown:
            out.repeats.append(place)
            return
        if known is not None:
            out.moved.append(Moved(key, _IMPRESSION, known[0], known[2]))
        state.impression = shown
        if shown[0] != state.anchor_ms:
            self._anchor(key, state, shown[0])

    def _anchor(self, key: Key, state: _Open, time_ms: int) -> None:
        earlier = time_ms < state.anchor_ms
        state.anchor_ms = time_ms
        if earlier:
            self._wait(time_ms // _BUCKET_MS)(key)

    def _expire(self, watermark_ms: int) -> list[tuple[Key, _Open | Shown]]:
        """Drop labels that the watermark has closed; in order of their anchor, then key."""
        last_closed_ms = watermark_ms - self._horizon_ms
        opened, due = self._open, self._due
        if last_closed_ms // _BUCKET_MS > self._bucket:
            self._bucket = last_closed_ms // _BUCKET_MS
            for bucket in [bucket for bucket in self._later if bucket <= self._bucket]:
                due += [
                    (_anchor_ms(opened[key]), key)
                    for key in self._later.pop(bucket)
                    if key in opened
                ]
            heapq.heapify(due)
        expired: list[tuple[int, Key, _Open | Shown]] = []
        room = self._closed_bytes_max
        while due and due[0][0] < last_closed_ms and room > 0:
            anchor_ms, key = heapq.heappop(due)
            state = opened.get(key)
            if state is None:
                continue
            own_ms = _anchor_ms(state)
            if own_ms > anchor_ms:
                self._wait(own_ms // _BUCKET_MS)(key)
                continue
            del opened[key]
            expired.append((own_ms, key, state))
            room -= _LABEL_BYTES + sum(map(len, key))
        expired.sort(key=lambda entry: entry[:2])
        return [(key, state) for _, key, state in expired]

    def _end(self, key: Key, state: _Open | Shown, watermark_ms: int, out: Attributed) -> None:
        """Close a label whose horizon has passed."""
        if isinstance(state, tuple):
            out.changes.append(LabelChange(key, *state, _SHOWN, _IGNORED))
            return
        self._emit(key, state, watermark_ms, out)
        out.unmatched += [
            Unmatched(key, feedback)
            for feedback in sorted(state.feedback)
            if not self._follows(state, feedback)
        ]

    def _follows(self, state: _Open, feedback: Feedback) -> bool:
        if state.impression is None:
            return False
        return 0 <= feedback.time_ms - state.impression[0] <= self._horizon_ms

    def _emit(self, key: Key, state: _Open, watermark_ms: int, out: Attributed) -> None:
        if state.impression is None:
            return
        time_ms, position, named = state.impression
        status = FINAL if time_ms + self._horizon_ms < watermark_ms else PROVISIONAL
        if state.feedback:
            new = self._judge(status, time_ms, state.feedback)
        else:
            new = _SHOWN if status == PROVISIONAL else _IGNORED
        if new != state.emitted:
            out.changes.append(LabelChange(key, time_ms, position, named, state.emitted, new))
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

    def dump(self) -> dict[str, bytes]:
        """The open labels, to go on from with `load`."""
        plain = {key: state for key, state in self._open.items() if isinstance(state, tuple)}
        wide = [
            [
                key,
                state.anchor_ms,
                state.impression,
                state.click,
                [(*f[:3], f.event_id.hex(), *f[4:]) for f in state.feedback],
                state.emitted,
            ]
            for key, state in self._open.items()
            if not isinstance(state, tuple)
        ]
        text = [part for key, (_, _, named) in plain.items() for part in (*key, *named)]
        numbers = [(time_ms, position) for time_ms, position, _ in plain.values()]
        is_plain = [isinstance(state, tuple) for state in self._open.values()]
        return {
            "order": np.array(is_plain, np.bool_).tobytes(),
            "text": json.dumps(text).encode(),
            "numbers": np.array(numbers, np.int64).tobytes(),
            "wide": json.dumps([self.overflow, wide], separators=(",", ":")).encode(),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        text = json.loads(parts["text"])
        numbers = np.frombuffer(parts["numbers"], np.int64).reshape(-1, 2).tolist()
        parts_of = [text[place::_TEXTS] for place in range(_TEXTS)]
        named = zip(*parts_of[3:], strict=True)
        plain = zip(
            zip(*parts_of[:3], strict=True),
            [(time_ms, at, names) for (time_ms, at), names in zip(numbers, named, strict=True)],
            strict=True,
        )
        self.overflow, entries = json.loads(parts["wide"])
        wide = map(_loaded, entries)
        order = np.frombuffer(parts["order"], np.bool_).tolist()
        self._open = dict(next(plain) if is_plain else next(wide) for is_plain in order)
        self._later, self._due, self._bucket = {}, [], -1
        for key, state in self._open.items():
            self._wait(_anchor_ms(state) // _BUCKET_MS)(key)


def _loaded(entry: Sequence[Any]) -> tuple[Key, _Open]:
    (user, request, item), anchor_ms, impression, click, feedback, emitted = entry
    shown = (*impression[:2], tuple(impression[2])) if impression else None
    state = _Open(anchor_ms, shown, LabelState(*emitted))
    state.click = (click[0], tuple(click[1])) if click else None
    state.feedback = [
        Feedback(time_ms, kind, micros, bytes.fromhex(event_id), offset, row)
        for time_ms, kind, micros, event_id, offset, row in feedback
    ]
    return (user, request, item), state


def _anchor_ms(state: _Open | Shown) -> int:
    return state[0] if isinstance(state, tuple) else state.anchor_ms


def _click(key: Key, state: _Open, shown: Shown, place: int, out: Attributed) -> None:
    clicked = (shown[0], shown[2])
    known = state.click
    if known is not None and known <= clicked:
        out.repeats.append(place)
        return
    if known is not None:
        out.moved.append(Moved(key, _CLICK, *known))
    state.click = clicked
