"""What labels are made of: feedback, states and their changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

ABSENT: Final = 0
PROVISIONAL: Final = 1
FINAL: Final = 2

Key: TypeAlias = tuple[str, str, str]  # user_id, request_id, item_id
Named: TypeAlias = tuple[str, str, str]  # category, query, location
Shown: TypeAlias = tuple[int, int, Named]  # event time, position, what the event names


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
    """A label became `new`; it was `old` before. The first three are of its impression."""

    key: Key
    impression_time_ms: int
    position: int
    named: Named
    old: LabelState
    new: LabelState


class Unmatched(NamedTuple):
    """Feedback that no impression precedes by at most the longest window."""

    key: Key
    feedback: Feedback


@dataclass(frozen=True, slots=True)
class FeedbackColumns:
    """n impressions, clicks and purchases that name a request, in the order of the log.

    Columns of length n. `watermarks_ms` is the watermark in force when each event's record was
    read: it is not behind it.
    """

    keys: Iterable[Key]
    kinds: Sequence[int]
    shown: Iterable[Shown]
    value_micros: Sequence[int]
    event_ids: Sequence[bytes]
    offsets: Sequence[int]  # where the log has it
    rows: Sequence[int]
    watermarks_ms: Sequence[int]


class Moved(NamedTuple):
    """An earlier impression or click took the place of this one: take its count back."""

    key: Key
    kind: int
    time_ms: int
    named: Named


@dataclass(slots=True)
class Attributed:
    """What some events, and the watermark after them, made of the labels.

    `opened` are the places of events that opened a label which is now provisional, as shown and
    nothing else, and was nothing before. `changes` are all other changes, in order; `repeats` the
    places of impressions and clicks that count nothing.
    """

    opened: list[int]
    changes: list[LabelChange]
    unmatched: list[Unmatched]
    repeats: list[int]
    moved: list[Moved]
