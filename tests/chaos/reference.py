"""What the log says, in plain Python and one thread: one pass over its rows, then one per key.

Nothing of the product's fold, join, sessions or counters takes part. Shared are the names of the
kinds' limits in the contract's text, and `id64`. tests/chaos/test_reference.py holds this, which is
linear in the length of the log, against the quadratic reference of tests/parity/oracle.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, NamedTuple

from rankstream.adapters.kafka import Record
from tests.chaos.events import (
    CLICK,
    CONTEXT,
    IMPRESSION,
    KINDS,
    PURCHASE,
    RATE,
    TICK,
    USER_UPDATE,
    VIEW,
    Event,
    events_of,
)

MICROS: Final = 1_000_000
ID_MAX: Final = 256
QUERY_MAX: Final = 1_024
CATEGORY_BYTES_MAX: Final = 64
POSITION_MAX: Final = 10_000
VALUE_MAX: Final = 1e9
FINAL: Final = 2
_ITEM_KINDS: Final = frozenset((IMPRESSION, CLICK, VIEW, RATE, PURCHASE))
_FEEDBACK: Final = frozenset((IMPRESSION, CLICK))

Key = tuple[str, str, str]  # user, request, item


@dataclass(frozen=True)
class Windows:
    """What decides, in ms of event time."""

    lateness_ms: int
    click_window_ms: int
    conversion_window_ms: int
    session_gap_ms: int
    ahead_ms_max: int
    behind_ms_max: int

    @property
    def horizon_ms(self) -> int:
        """The longest window of a label."""
        return max(self.click_window_ms, self.conversion_window_ms)


class Placed(NamedTuple):
    """An event and where the log holds it."""

    partition: int
    offset: int
    row: int
    append_ms: int
    event: Event


@dataclass
class Sifted:
    """Every row of the log, and what becomes of it."""

    rows: list[Placed] = field(default_factory=list)
    kept: list[Event] = field(default_factory=list)
    refused: set[tuple[int, int, int]] = field(default_factory=set)  # partition, offset, row
    broken: set[tuple[int, int]] = field(default_factory=set)  # partition, offset
    duplicates: int = 0
    late: int = 0
    ticks: int = 0


class Label(NamedTuple):
    """A label after its last change."""

    status: int
    clicked: int
    purchased: int
    value_micros: int
    impression_time_ms: int
    position: int


class Session(NamedTuple):
    """A session that is over."""

    user: str
    start_ms: int
    end_ms: int
    events: int
    impressions: int
    clicks: int
    purchases: int


class Addition(NamedTuple):
    """What one event adds to the counters of its user, and of the item and more that it names."""

    user: str
    item: str
    category: str
    query: str
    location: str
    time_ms: int
    impressions: int = 0
    clicks: int = 0
    views: int = 0
    purchases: int = 0
    value_micros: int = 0
    ratings: int = 0
    rating_micros: int = 0


class Unit(NamedTuple):
    """What a scorecard adds up for one user."""

    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    value_micros: int = 0

    def plus(self, other: Unit) -> Unit:
        """The sum."""
        return Unit(*(one + two for one, two in zip(self, other, strict=True)))


def is_refused(event: Event, append_ms: int, windows: Windows) -> bool:
    """Whether the event breaks a rule of the contract."""
    ahead_ms = event.time_ms - append_ms
    return (
        event.kind not in KINDS
        or (event.kind != TICK and not event.user)
        or len(event.user) > ID_MAX
        or (event.kind in _ITEM_KINDS and not event.item)
        or len(event.item) > ID_MAX
        or (event.kind in _FEEDBACK and not event.request)
        or len(event.request) > ID_MAX
        or len(event.category.encode()) > CATEGORY_BYTES_MAX
        or len(event.query) > QUERY_MAX
        or len(event.location) > ID_MAX
        or not 0 <= event.position < POSITION_MAX
        or not isfinite(event.value)
        or abs(event.value) > VALUE_MAX
        or (event.kind == PURCHASE and event.value < 0)
        or ahead_ms > windows.ahead_ms_max
        or -ahead_ms > windows.behind_ms_max
        or event.time_ms <= 0
    )


def sift(log: Mapping[int, Sequence[Record]], windows: Windows) -> Sifted:
    """Who counts: the first of each event_id, in the order of its partition, if it is not late."""
    out = Sifted()
    for partition, records in log.items():
        seen: set[bytes] = set()
        newest_ms = 0
        for record in records:
            events = events_of(record.value or b"")
            if events is None:
                out.broken.add((partition, record.offset))
                continue
            for row, event in enumerate(events):
                append_ms = record.timestamp_ms
                out.rows.append(Placed(partition, record.offset, row, append_ms, event))
                if is_refused(event, append_ms, windows):
                    out.refused.add((partition, record.offset, row))
                    continue
                if event.kind == TICK:
                    out.ticks += 1
                elif event.event_id in seen:
                    out.duplicates += 1
                    continue
                elif event.time_ms < newest_ms - windows.lateness_ms:
                    out.late += 1
                    continue
                else:
                    seen.add(event.event_id)
                    out.kept.append(event)
                newest_ms = max(newest_ms, event.time_ms)
    return out


def _key(event: Event) -> Key:
    return (event.user, event.request, event.item)


@dataclass
class Joined:
    """Impressions, clicks and purchases that name a request, by what they are about."""

    impressions: dict[Key, list[Event]]
    clicks: dict[Key, list[Event]]
    purchases: dict[Key, list[Event]]


def join(kept: Iterable[Event]) -> Joined:
    """The lists, each with its earliest first."""
    joined = Joined(defaultdict(list), defaultdict(list), defaultdict(list))
    lists = {IMPRESSION: joined.impressions, CLICK: joined.clicks, PURCHASE: joined.purchases}
    for event in kept:
        if event.kind in lists and event.request:
            lists[event.kind][_key(event)].append(event)
    for shown in joined.impressions.values():
        shown.sort(key=lambda event: (event.time_ms, event.position, *_named(event)))
    for clicked in joined.clicks.values():
        clicked.sort(key=lambda event: (event.time_ms, *_named(event)))
    return joined


def labels(joined: Joined, windows: Windows) -> dict[Key, Label]:
    """The final label of each (user, request, item) that was on screen."""
    found = {}
    for key, shown in joined.impressions.items():
        start_ms = shown[0].time_ms
        clicked = any(
            0 <= click.time_ms - start_ms <= windows.click_window_ms
            for click in joined.clicks.get(key, ())
        )
        bought = [
            purchase
            for purchase in joined.purchases.get(key, ())
            if 0 <= purchase.time_ms - start_ms <= windows.conversion_window_ms
        ]
        found[key] = Label(
            FINAL,
            int(clicked),
            int(bool(bought)),
            sum(_micros(purchase) for purchase in bought),
            start_ms,
            shown[0].position,
        )
    return found


def unmatched(joined: Joined, windows: Windows) -> set[bytes]:
    """event_ids of feedback that no impression precedes by at most the longest window."""
    found = set()
    for feedback in (joined.clicks, joined.purchases):
        for key, events in feedback.items():
            shown = joined.impressions.get(key)
            for event in events:
                after_ms = event.time_ms - shown[0].time_ms if shown else -1
                if not 0 <= after_ms <= windows.horizon_ms:
                    found.add(event.event_id)
    return found


def units(found: Mapping[Key, Label]) -> dict[str, Unit]:
    """What the labels of each user add up to."""
    sums: dict[str, Unit] = defaultdict(Unit)
    for (user, _, _), label in found.items():
        shown = Unit(1, label.clicked, label.purchased, label.value_micros)
        sums[user] = sums[user].plus(shown)
    return dict(sums)


def sessions(kept: Iterable[Event], gap_ms: int) -> list[Session]:
    """Every user's sessions, in order of user and time."""
    acts: dict[str, list[Event]] = defaultdict(list)
    for event in kept:
        if event.kind not in (USER_UPDATE, CONTEXT):
            acts[event.user].append(event)
    found = []
    for user in sorted(acts):
        mine = sorted(acts[user], key=lambda event: event.time_ms)
        group = [mine[0]]
        for event in mine[1:]:
            if event.time_ms - group[-1].time_ms > gap_ms:
                found.append(_session(user, group))
                group = []
            group.append(event)
        found.append(_session(user, group))
    return found


def _session(user: str, group: Sequence[Event]) -> Session:
    kinds = [event.kind for event in group]
    return Session(
        user,
        group[0].time_ms,
        group[-1].time_ms,
        len(group),
        kinds.count(IMPRESSION),
        kinds.count(CLICK),
        kinds.count(PURCHASE),
    )


def additions(kept: Iterable[Event], joined: Joined) -> list[Addition]:
    """What counts: impressions and clicks once per (user, request, item), the earliest."""
    found = []
    for shown in joined.impressions.values():
        found += [_about(event, impressions=int(n == 0)) for n, event in enumerate(shown)]
    for clicked in joined.clicks.values():
        found += [_about(event, clicks=int(n == 0)) for n, event in enumerate(clicked)]
    for event in kept:
        if event.kind == VIEW:
            found.append(_about(event, views=1))
        elif event.kind == PURCHASE:
            found.append(_about(event, purchases=1, value_micros=_micros(event)))
        elif event.kind == RATE:
            found.append(_about(event, ratings=1, rating_micros=_micros(event)))
        elif event.kind not in (IMPRESSION, CLICK, USER_UPDATE, CONTEXT):
            found.append(Addition(event.user, "", "", "", "", event.time_ms))
    return found


def _about(event: Event, **counts: int) -> Addition:
    category, query, location = _named(event)
    return Addition(event.user, event.item, category, query, location, event.time_ms, **counts)


def _named(event: Event) -> tuple[str, str, str]:
    return event.category, event.query, event.location


def _micros(event: Event) -> int:
    return round(event.value * MICROS)
