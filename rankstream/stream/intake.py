"""Events sorted by who takes them in: labels, counters, recent actions, sessions, attributes.

The live fold and the replay that makes training rows cut events the same way, here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.labels import FeedbackColumns, Moved
from rankstream.features.deltas import Additions, micros_of
from rankstream.features.rows import TOTALS
from rankstream.features.state import ATTRIBUTE_MAX, RECENT_KINDS, STATED, Action
from rankstream.sessions import ACTIVITY_KINDS, ActivityRow

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_KINDS: Final = 256
_ATTRIBUTED: Final = (Kind.IMPRESSION, Kind.CLICK, Kind.PURCHASE)
_UPDATES: Final = (Kind.USER_UPDATE, Kind.CONTEXT)
_COUNTED: Final = {
    Kind.IMPRESSION: "impressions",
    Kind.CLICK: "clicks",
    Kind.VIEW: "views",
    Kind.PURCHASE: "purchases",
    Kind.RATE: "ratings",
}


def _is(kinds: Sequence[int] | frozenset[int]) -> npt.NDArray[np.bool_]:
    found = np.zeros(_KINDS, np.bool_)
    found[list(kinds)] = True
    return found


_IS_ACTIVITY: Final = _is(ACTIVITY_KINDS)
_IS_ATTRIBUTED: Final = _is(_ATTRIBUTED)
_IS_RECENT: Final = _is(RECENT_KINDS)
_IS_UPDATE: Final = _is(_UPDATES)
_STATED_AT: Final = {stated: place for place, stated in enumerate(STATED)}
# Which of TOTALS an event adds 1 to, and which its value; len(TOTALS): none.
_ONE: Final = np.full(_KINDS, len(TOTALS))
for _kind, _name in _COUNTED.items():
    _ONE[_kind] = TOTALS.index(_name)
_AMOUNT: Final = np.full(_KINDS, len(TOTALS))
_AMOUNT[Kind.PURCHASE] = TOTALS.index("value_micros")
_AMOUNT[Kind.RATE] = TOTALS.index("rating_micros")


@dataclass(frozen=True, eq=False)
class Attributes:
    """n numbers that updates state; shapes (n,)."""

    row: Places  # which of the columns' rows states it
    attribute: Ints  # place in STATED
    value: Floats


@dataclass(frozen=True, eq=False)
class Intake:
    """Rows of `columns` by who takes them in, each in the order given; `micros` is of all rows."""

    columns: EventColumns
    activity: Places  # what users did
    feedback: Places  # which labels are made of
    feedback_at: Places  # where in `activity`
    actions: Places  # what is remembered of a user
    updates: Places  # what was said of users and of what is around them
    attributes: Attributes  # that those state
    micros: Ints

    def keys(self) -> Iterator[tuple[str, str, str]]:
        """(user, request, item) of the feedback."""
        columns, rows = self.columns, self.feedback
        named = (columns.user_id, columns.request_id, columns.item_id)
        return zip(*(_text(columns, column[rows]) for column in named), strict=True)

    def feedback_columns(
        self, *, offsets: Ints, rows: Ints, watermarks_ms: Ints
    ) -> FeedbackColumns:
        """The feedback, for Attribution.

        Args:
            offsets: of each row of `columns`, shape (n,), where the log has it,
            rows: and which row of its record it is;
            watermarks_ms: the watermark when its record was read.
        """
        columns, own = self.columns, self.feedback
        ids, places = columns.event_id, own.tolist()
        return FeedbackColumns(
            keys=self.keys(),
            kinds=columns.kind[own].tolist(),
            shown=zip(
                columns.event_time_ms[own].tolist(),
                columns.position[own].tolist(),
                zip(
                    _text(columns, columns.category[own]),
                    _text(columns, columns.query[own]),
                    _text(columns, columns.location[own]),
                    strict=True,
                ),
                strict=True,
            ),
            value_micros=self.micros[own].tolist(),
            event_ids=[ids[16 * row : 16 * row + 16] for row in places],
            offsets=offsets[own].tolist(),
            rows=rows[own].tolist(),
            watermarks_ms=watermarks_ms[own].tolist(),
        )

    def action_rows(self, rows: Places, row_of: Ints) -> Iterator[Action]:
        """Some of the actions, for UserStates; `row_of` is the row of each number of a user."""
        columns = self.columns
        return zip(
            row_of[columns.user_id[rows]].tolist(),
            _text(columns, columns.item_id[rows]),
            _text(columns, columns.category[rows]),
            columns.event_time_ms[rows].tolist(),
            columns.value[rows].tolist(),
            columns.kind[rows].tolist(),
            strict=True,
        )

    def stated(self, places: Places, row_of: Ints) -> tuple[Ints, Ints, Ints, Floats]:
        """Some of the attributes, for UserStates; `row_of` as for `action_rows`."""
        columns, found = self.columns, self.attributes
        row = found.row[places]
        who, when = row_of[columns.user_id[row]], columns.event_time_ms[row]
        return who, found.attribute[places], when, found.value[places]

    def activity_rows(self) -> Iterator[ActivityRow]:
        """The activity, for Sessions."""
        columns, own = self.columns, self.activity
        return zip(
            _text(columns, columns.user_id[own]),
            columns.kind[own].tolist(),
            columns.event_time_ms[own].tolist(),
            strict=True,
        )

    def additions(self, repeats: Sequence[int], moved: Sequence[Moved]) -> Additions:
        """What the activity adds to the counters: that of event k first, then what is taken back.

        Args:
            repeats: places in `feedback` that count nothing.
            moved: counts to take back.
        """
        columns, own = self.columns, self.activity
        kind, places = columns.kind[own], np.arange(len(own))
        # One more column takes what does not count.
        amounts = np.zeros((len(own), len(TOTALS) + 1), np.int64)
        amounts[places, _ONE[kind]] = 1
        amounts[places, _AMOUNT[kind]] = self.micros[own]
        amounts = amounts[:, : len(TOTALS)]
        if repeats:
            amounts[self.feedback_at[repeats]] = 0
        about_item = kind != Kind.VISIT
        item, category, query, location = (
            np.where(about_item, column[own], 0).astype(np.int64)
            for column in (columns.item_id, columns.category, columns.query, columns.location)
        )
        found = Additions(
            strings=columns.strings,
            user=columns.user_id[own].astype(np.int64),
            item=item,
            category=category,
            query=query,
            location=location,
            time_ms=columns.event_time_ms[own],
            amounts=amounts,
        )
        return _taken_back(found, moved) if moved else found


def _taken_back(additions: Additions, moved: Sequence[Moved]) -> Additions:
    """The additions, and -1 for each that an earlier event took the place of."""
    strings = list(additions.strings)
    number = {text: place for place, text in enumerate(strings)}

    def numbers(texts: Iterator[str]) -> Ints:
        found = []
        for text in texts:
            found.append(number.setdefault(text, len(strings)))
            if found[-1] == len(strings):
                strings.append(text)
        return np.array(found, np.int64)

    user, item = numbers(m.key[0] for m in moved), numbers(m.key[2] for m in moved)
    category, query, location = (numbers(m.named[place] for m in moved) for place in range(3))
    amounts = np.zeros((len(moved), len(TOTALS)), np.int64)
    amounts[np.arange(len(moved)), _ONE[[m.kind for m in moved]]] = -1
    return Additions(
        strings,
        np.concatenate([additions.user, user]),
        np.concatenate([additions.item, item]),
        np.concatenate([additions.category, category]),
        np.concatenate([additions.query, query]),
        np.concatenate([additions.location, location]),
        np.concatenate([additions.time_ms, [m.time_ms for m in moved]]),
        np.concatenate([additions.amounts, amounts]),
    )


def take_in(columns: EventColumns, rows: Places) -> Intake:
    """Events of `columns` by who takes them in, in the order of `rows`; none of them is a tick."""
    kind = columns.kind[rows]
    micros = np.zeros(len(columns), np.int64)
    micros[rows] = micros_of(columns.value[rows])
    activity, updates = rows[_IS_ACTIVITY[kind]], rows[_IS_UPDATE[kind]]
    feedback_at = np.flatnonzero(
        _IS_ATTRIBUTED[columns.kind[activity]] & (columns.request_id[activity] > 0)
    )
    return Intake(
        columns=columns,
        activity=activity,
        feedback=activity[feedback_at],
        feedback_at=feedback_at,
        actions=rows[_IS_RECENT[kind]],
        updates=updates,
        attributes=_attributes(columns, updates),
        micros=micros,
    )


def _attributes(columns: EventColumns, updates: Places) -> Attributes:
    """The numbers of STATED that updates state; where an event names one twice, the last."""
    if not len(updates):
        none = np.zeros(0, np.intp)
        return Attributes(none, none, np.zeros(0))
    is_update = np.zeros(len(columns), np.bool_)
    is_update[updates] = True
    entry = np.flatnonzero(is_update[columns.attribute_row])
    row = columns.attribute_row[entry].astype(np.intp)
    numbers, which = np.unique(columns.attribute_name[entry], return_inverse=True)
    names = [columns.strings[number] for number in numbers.tolist()]
    attribute = np.full(len(entry), -1)
    for kind in _UPDATES:
        place = np.array([_STATED_AT.get((kind, name), -1) for name in names], np.int64)
        own = np.flatnonzero(columns.kind[row] == kind)
        attribute[own] = place[which[own]]
    known = np.flatnonzero(attribute >= 0)
    # Of each (row, attribute) the first one from behind.
    _, behind = np.unique((row * len(STATED) + attribute)[known[::-1]], return_index=True)
    last = known[::-1][behind]
    is_number = columns.attribute_text[entry[last]] == 0
    last = last[is_number & (np.abs(columns.attribute_number[entry[last]]) <= ATTRIBUTE_MAX)]
    return Attributes(row[last], attribute[last], columns.attribute_number[entry[last]])


def _text(columns: EventColumns, numbers: npt.NDArray[np.uint32]) -> list[str]:
    strings = columns.strings
    return [strings[number] for number in numbers.tolist()]
