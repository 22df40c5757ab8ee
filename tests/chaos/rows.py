"""The rows that Redis must hold, built field by field from the events of each key.

The layout (dtypes, windows, how many actions and tastes a row has room for) is the contract of
rankstream/features/rows.py; every number in it is computed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankstream.adapters.kafka import Record
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    View,
)
from rankstream.contracts.ids import id32, id64
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES
from rankstream.features.rows import (
    CATEGORIES,
    CATEGORY_ROW,
    CONTEXT_ATTRIBUTES,
    FIRST_SLOT,
    ITEM_ROW,
    RATED,
    RECENT,
    SLOTS,
    USER_ROW,
    WINDOWS,
    Rows,
    empty_rows,
)
from rankstream.pb import events_pb2 as pb
from tests.chaos.events import CLICK, CONTEXT, PURCHASE, RATE, USER_UPDATE, VIEW, Event
from tests.chaos.reference import Addition, Session

# A row's stamp says how far its partition was folded when it was written: it depends on repeated
# sends and on how records were grouped, and so takes no part.
STAMP: Final = ("partition", "offset", "items_offset")
_ACTS: Final = frozenset((CLICK, VIEW, RATE, PURCHASE))


@dataclass(frozen=True, eq=False)
class Table:
    """Rows by key; `rows` has shape (len(keys),)."""

    keys: list[str]
    rows: Rows


def unstamped(rows: Rows) -> Rows:
    """A copy without stamps."""
    bare = rows.copy()
    for name in STAMP:
        bare[name] = 0
    return bare


def _by(key: Callable[[Addition], str], added: Iterable[Addition]) -> dict[str, list[Addition]]:
    groups: dict[str, list[Addition]] = defaultdict(list)
    for addition in added:
        if name := key(addition):
            groups[name].append(addition)
    return groups


def _table(keys: Iterable[str], dtype: np.dtype[np.void]) -> Table:
    names = sorted(keys)
    return Table(names, unstamped(empty_rows(len(names), dtype)))


def _count(table: Table, groups: Mapping[str, Sequence[Addition]]) -> None:
    """Fill in the counters of every key."""
    for place, key in enumerate(table.keys):
        added = groups.get(key, ())
        if not added:
            continue
        counts = [[0, 0, 0, 0] for _ in range(SLOTS)]
        values = [0] * SLOTS
        heads = []
        newest_ms = max(addition.time_ms for addition in added)
        for window, first in zip(WINDOWS, FIRST_SLOT, strict=True):
            head = newest_ms // window.bucket_ms
            heads.append(head)
            for addition in added:
                bucket = addition.time_ms // window.bucket_ms
                if bucket > head - window.buckets:
                    slot = first + bucket % window.buckets
                    values[slot] += addition.value_micros
                    for column, count in enumerate(addition[6:10]):
                        counts[slot][column] += count
        row = table.rows[place]
        row["head"], row["counts"], row["value_micros"] = heads, counts, values
        row["totals"] = [sum(column) for column in zip(*(a[6:] for a in added), strict=True)]
        row["last_ms"] = newest_ms


def user_rows(kept: Sequence[Event], added: Sequence[Addition], ended: Iterable[Session]) -> Table:
    """USER_ROW of every user who acted or was described."""
    groups = _by(lambda addition: addition.user, added)
    actions: dict[str, list[Event]] = defaultdict(list)
    attributes: dict[str, list[Event]] = defaultdict(list)
    context: dict[str, list[Event]] = defaultdict(list)
    for event in kept:
        if event.kind in _ACTS:
            actions[event.user].append(event)
        elif event.kind == USER_UPDATE:
            attributes[event.user].append(event)
        elif event.kind == CONTEXT:
            context[event.user].append(event)
    last = {session.user: session for session in ended}  # they come in order of time
    table = _table({*groups, *attributes, *context}, USER_ROW)
    _count(table, groups)
    for place, user in enumerate(table.keys):
        row = table.rows[place]
        recent = sorted(map(_action, actions.get(user, ())), reverse=True)[:RECENT]
        for slot, (time_ms, item, kind, value, category) in enumerate(recent):
            row["recent"][slot] = (item, category, time_ms, value, kind)
        ratings = [action for action in map(_action, actions.get(user, ())) if action[2] == RATE]
        rated = sorted(((time_ms, id32(item), value) for time_ms, item, _, value, _ in ratings))
        for slot, (_, item, value) in enumerate(rated[: -RATED - 1 : -1]):
            row["rated"][slot] = (item, value)
        for slot, taste in enumerate(_tastes(groups.get(user, ()))):
            row["tastes"][slot] = taste
        if session := last.get(user):
            row["session_start_ms"], row["session_last_ms"] = session.start_ms, session.end_ms
            row["session_impressions"] = session.impressions
            row["session_clicks"] = session.clicks
        for column, name in enumerate(USER_ATTRIBUTES):
            row["attributes"][column] = _newest(attributes.get(user, ()), name)[1]
        for column, known in enumerate(CONTEXT_ATTRIBUTES):
            row["context"][column] = _newest(context.get(user, ()), known.name)
    return table


def _action(event: Event) -> tuple[int, int, int, float, int]:
    value = event.value if event.kind in (VIEW, RATE, PURCHASE) else 0.0
    category = id64(event.category) if event.category else 0
    return (event.time_ms, id64(event.item), event.kind, float(np.float32(value)), category)


def _tastes(added: Iterable[Addition]) -> list[tuple[int, int, int, int, int, int]]:
    """What the user did with the categories used last, in order of their hash."""
    found = [
        (
            id64(category),
            max(addition.time_ms for addition in mine),
            sum(addition.impressions for addition in mine),
            sum(addition.clicks for addition in mine),
            sum(addition.ratings for addition in mine),
            sum(addition.rating_micros for addition in mine),
        )
        for category, mine in _by(lambda addition: addition.category, added).items()
    ]
    found.sort(key=lambda taste: (taste[1], taste[0]), reverse=True)
    return sorted(found[:CATEGORIES])


def _newest(updates: Iterable[Event], name: str) -> tuple[int, float]:
    """When and what was said last of an attribute, the largest of equally new; 0 and nan: none."""
    values = [
        (update.time_ms, value)
        for update in updates
        for known, value in update.attributes
        if known == name
    ]
    return max(values, default=(0, float("nan")))


def item_rows(added: Sequence[Addition], log: Mapping[int, Sequence[Record]]) -> Table:
    """ITEM_ROW of every item that was met or described; `log` is that of topic `items`."""
    groups = _by(lambda addition: addition.item, added)
    described: dict[str, pb.Item] = {}
    for records in log.values():
        for record in records:
            item = pb.Item.FromString(record.value or b"")
            known = described.get(item.item_id)
            if known is None or item.updated_ms >= known.updated_ms:
                described[item.item_id] = item
    table = _table({*groups, *described}, ITEM_ROW)
    _count(table, groups)
    for place, key in enumerate(table.keys):
        if metadata := described.get(key):
            row = table.rows[place]
            row["category"] = metadata.category.encode()
            row["withdrawn"] = metadata.withdrawn
            row["attributes"] = [
                metadata.attributes.get(name, float("nan")) for name in ITEM_ATTRIBUTES
            ]
    return table


def key_rows(name: Callable[[Addition], str], added: Sequence[Addition]) -> Table:
    """CATEGORY_ROW, which is CONTEXT_ROW, of every category, query or location that was met."""
    groups = _by(lambda addition: name(addition) if addition.item else "", added)
    table = _table(groups, CATEGORY_ROW)
    _count(table, groups)
    return table


def rows_of(
    kept: Sequence[Event],
    added: Sequence[Addition],
    ended: Iterable[Session],
    items: Mapping[int, Sequence[Record]],
) -> dict[View, Table]:
    """All that Redis must hold."""
    return {
        USER_STATE: user_rows(kept, added, ended),
        ITEM_STATE: item_rows(added, items),
        CATEGORY_STATE: key_rows(lambda addition: addition.category, added),
        QUERY_STATE: key_rows(lambda addition: addition.query, added),
        LOCATION_STATE: key_rows(lambda addition: addition.location, added),
    }
