"""Events sorted by who takes them in: labels, counters, recent actions, sessions, attributes.

The live fold (rankstream/stream) makes the same cut; tests/parity holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rankstream.attribution import Counted, FeedbackRow
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.features.deltas import Addition
from rankstream.features.rows import MICROS
from rankstream.features.state import RECENT_KINDS, Action
from rankstream.sessions import ACTIVITY_KINDS, ActivityRow

_FEEDBACK: Final = frozenset((int(Kind.IMPRESSION), int(Kind.CLICK)))
_ATTRIBUTED: Final = _FEEDBACK | {int(Kind.PURCHASE)}
# Which amount of an Addition an event of this kind adds 1 to.
_PLACE: Final = {int(Kind.VIEW): 2, int(Kind.PURCHASE): 3, int(Kind.RATE): 5}


@dataclass(slots=True)
class Intake:
    """Some events, in the order in which they were given."""

    feedback: list[FeedbackRow] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    activity: list[ActivityRow] = field(default_factory=list)
    updated_users: list[int] = field(default_factory=list)  # rows of USER_UPDATE


def take_in(columns: EventColumns, rows: Sequence[int]) -> Intake:
    """The events in `rows`, none of them a tick."""
    intake, strings = Intake(), columns.strings
    kinds, times = columns.kind.tolist(), columns.event_time_ms.tolist()
    users, items = columns.user_id.tolist(), columns.item_id.tolist()
    requests, categories = columns.request_id.tolist(), columns.category.tolist()
    positions, values = columns.position.tolist(), columns.value.tolist()
    for row in rows:
        kind, time_ms, user = kinds[row], times[row], strings[users[row]]
        if kind not in ACTIVITY_KINDS:
            if kind == Kind.USER_UPDATE:
                intake.updated_users.append(row)
            continue
        intake.activity.append((user, kind, time_ms))
        item, category = strings[items[row]], strings[categories[row]]
        request, micros = strings[requests[row]], round(values[row] * MICROS)
        if request and kind in _ATTRIBUTED:
            own_id = columns.event_id[16 * row : 16 * row + 16]
            place = positions[row]
            intake.feedback.append(
                (user, request, item, kind, time_ms, place, category, micros, own_id, row)
            )
        if kind not in _FEEDBACK:
            intake.additions.append(_plain(user, item, category, time_ms, kind, micros))
        if kind in RECENT_KINDS:
            intake.actions.append((user, item, category, time_ms, values[row], kind))
    return intake


def addition(counted: Counted) -> Addition:
    """What an impression or a click that attribution has counted adds."""
    (user, _, item), category, time_ms, kind, count = counted
    if kind == Kind.IMPRESSION:
        return (user, item, category, time_ms, count, 0, 0, 0, 0, 0, 0)
    return (user, item, category, time_ms, 0, count, 0, 0, 0, 0, 0)


def _plain(user: str, item: str, category: str, time_ms: int, kind: int, micros: int) -> Addition:
    if kind == Kind.VISIT:
        return (user, "", "", time_ms, 0, 0, 0, 0, 0, 0, 0)
    amounts = [0] * 7
    amounts[_PLACE[kind]] = 1
    if kind == Kind.PURCHASE:
        amounts[4] = micros
    elif kind == Kind.RATE:
        amounts[6] = micros
    i, c, v, p, value, n, rating = amounts
    return (user, item, category, time_ms, i, c, v, p, value, n, rating)
