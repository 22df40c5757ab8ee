"""What is remembered of each user, and how events change it.

The result depends on the set of events and not on their order: counters add up,
recent actions and attributes are ordered by event time with ties broken by
content. Tastes are exact while a user has used at most TASTES_HELD categories;
past that the one used longest ago is forgotten.

Users are never evicted: about 1 kB each, 29 bytes per recent action and 0.25 kB
per category used. More partitions, on more workers, are what bounds a worker's memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np

from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id64
from rankstream.features.counters import COUNTER_FIELDS, CounterTable, packed
from rankstream.features.deltas import Addition, fit
from rankstream.features.rows import (
    CATEGORIES,
    CATEGORY_ROW,
    CATEGORY_TASTE,
    RECENT,
    RECENT_ACTION,
    USER_ATTRIBUTES,
    USER_ROW,
    Rows,
    empty_rows,
)

RECENT_KINDS: Final = frozenset(
    int(kind) for kind in (Kind.CLICK, Kind.VIEW, Kind.RATE, Kind.PURCHASE)
)
TASTES_HELD: Final = 256
# Beyond this a number is no attribute: float32 holds it and so does any scaler.
ATTRIBUTE_MAX: Final = 1e9

# user_id, item, category, event time, value, kind
Action: TypeAlias = tuple[str, str, str, int, float, int]
# session start, last event, impressions, clicks
SessionColumns: TypeAlias = tuple[int, int, int, int]

_ACTION: Final = struct.Struct("<QQqfB")
_RECENT_BYTES: Final = RECENT * _ACTION.size
_TASTE: Final = struct.Struct("<QqIIIq")
_TASTE_ROW: Final = CATEGORIES * _TASTE.size
_MASK: Final = (1 << 32) - 1
_NO_SESSION: Final[SessionColumns] = (0, 0, 0, 0)
assert _ACTION.size == RECENT_ACTION.itemsize
assert _TASTE.size == CATEGORY_TASTE.itemsize

hash_of = lru_cache(maxsize=1 << 17)(id64)


class UserStates:
    """The users of one partition."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._counters = CounterTable(CATEGORY_ROW)
        self._recent: list[bytes] = []  # packed RECENT_ACTION, newest first
        # category hash -> [newest event, impressions, clicks, ratings, rating_micros]
        self._tastes: list[dict[int, list[int]]] = []
        self._sessions: list[SessionColumns] = []
        self._changed_at: list[int] = []
        self._attributes: dict[int, dict[str, tuple[int, float]]] = {}  # name -> (time, value)

    def __len__(self) -> int:
        return len(self._counters)

    def _row(self, user: str) -> int:
        row = self._counters.row(user)
        if row == len(self._recent):
            self._recent.append(b"")
            self._tastes.append({})
            self._sessions.append(_NO_SESSION)
            self._changed_at.append(-1)
        return row

    def count(self, additions: Iterable[Addition]) -> None:
        """Add to counters and to tastes."""
        pending, index = [], self._counters.index
        for (
            user,
            _,
            name,
            time_ms,
            shown,
            clicks,
            views,
            bought,
            value,
            ratings,
            rating,
        ) in additions:
            row = index.get(user)
            if row is None:
                row = self._row(user)
            pending.append((row, time_ms, shown, clicks, views, bought, value, ratings, rating))
            if not name:
                continue
            category, tastes = hash_of(name), self._tastes[row]
            taste = tastes.get(category)
            if taste is None:
                tastes[category] = [time_ms, shown, clicks, ratings, rating]
                if len(tastes) > TASTES_HELD:
                    _forget_one(tastes)
                continue
            if time_ms > taste[0]:
                taste[0] = time_ms
            taste[1] += shown
            taste[2] += clicks
            if ratings:
                taste[3] += ratings
                taste[4] += rating
        self._counters.add(pending)

    def act(self, actions: Iterable[Action]) -> None:
        """Remember actions of RECENT_KINDS."""
        for user, item, category, time_ms, value, kind in actions:
            row = self._row(user)
            action = _ACTION.pack(
                hash_of(item), hash_of(category) if category else 0, time_ms, value, kind
            )
            recent = self._recent[row]
            if not recent or time_ms > int.from_bytes(recent[16:24], "little"):
                self._recent[row] = action + recent[: _RECENT_BYTES - len(action)]
            else:
                self._recent[row] = _inserted(recent, action)

    def learn(self, user: str, time_ms: int, attributes: Mapping[str, str | float]) -> None:
        """Note attributes of a user: of each name the newest, the largest of equally new."""
        row = self._row(user)
        known = self._attributes.setdefault(row, {})
        for name in USER_ATTRIBUTES:
            value = attributes.get(name)
            if isinstance(value, str) or value is None or not abs(value) <= ATTRIBUTE_MAX:
                continue
            known[name] = max(known.get(name, (0, -math.inf)), (time_ms, value))

    def session(self, user: str, session: SessionColumns) -> None:
        """Set the user's latest session."""
        self._sessions[self._row(user)] = session

    def changed(self, users: Iterable[str], offset: int) -> None:
        """Note that the record at `offset` changed these users."""
        for user in users:
            self._changed_at[self._row(user)] = offset

    def packed(self, users: Iterable[str]) -> list[tuple[str, bytes]]:
        """USER_ROW bytes of those users that are known."""
        found = [
            (user, row) for user in users if (row := self._counters.index.get(user)) is not None
        ]
        if not found:
            return []
        rows = self._packed([row for _, row in found])
        return list(zip((user for user, _ in found), packed(rows), strict=True))

    def _packed(self, index: list[int]) -> Rows:
        rows = empty_rows(len(index), USER_ROW)
        counters = self._counters.rows()[index]
        for name in COUNTER_FIELDS:
            rows[name] = counters[name]
        rows["partition"] = self._partition
        rows["offset"] = [self._changed_at[row] for row in index]
        recent = b"".join([self._recent[row].ljust(_RECENT_BYTES, b"\0") for row in index])
        rows["recent"] = np.frombuffer(recent, RECENT_ACTION).reshape(len(index), RECENT)
        tastes = b"".join([_packed_tastes(self._tastes[row]) for row in index])
        rows["tastes"] = np.frombuffer(tastes, CATEGORY_TASTE).reshape(len(index), CATEGORIES)
        sessions = np.array([self._sessions[row] for row in index], np.int64)
        rows["session_start_ms"], rows["session_last_ms"] = sessions[:, 0], sessions[:, 1]
        rows["session_impressions"], rows["session_clicks"] = sessions[:, 2], sessions[:, 3]
        for place, row in enumerate(index):
            for name, (_, value) in self._attributes.get(row, {}).items():
                rows["attributes"][place, USER_ATTRIBUTES.index(name)] = value
        return rows

    def dump(self) -> dict[str, bytes]:
        """All users, to go on from with `load`."""
        tastes = [
            (row, category, *taste)
            for row, held in enumerate(self._tastes)
            for category, taste in held.items()
        ]
        rest = {
            "recent": [len(recent) for recent in self._recent],
            "tastes": tastes,
            "sessions": self._sessions,
            "changed_at": self._changed_at,
            "attributes": list(self._attributes.items()),
        }
        return {
            **self._counters.dump(),
            "recent": b"".join(self._recent),
            "rest": json.dumps(rest, separators=(",", ":")).encode(),
        }

    def load(self, parts: dict[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        self._counters.load(parts)
        rest = json.loads(parts["rest"])
        ends = np.cumsum([0, *rest["recent"]]).tolist()
        self._recent = [parts["recent"][a:b] for a, b in pairwise(ends)]
        self._tastes = [{} for _ in self._recent]
        for row, category, *taste in rest["tastes"]:
            self._tastes[row][category] = taste
        self._sessions = [(a, b, c, d) for a, b, c, d in rest["sessions"]]
        self._changed_at = rest["changed_at"]
        self._attributes = {
            row: {name: (time_ms, value) for name, (time_ms, value) in known.items()}
            for row, known in rest["attributes"]
        }


def _forget_one(tastes: dict[int, list[int]]) -> None:
    """Forget the category used longest ago."""
    del tastes[min(tastes, key=lambda category: (tastes[category][0], category))]


def _inserted(recent: bytes, action: bytes) -> bytes:
    """The newest RECENT of these and one more; ties of time go by content."""
    actions = [*_ACTION.iter_unpack(recent), _ACTION.unpack(action)]
    actions.sort(key=_newest_first, reverse=True)
    return b"".join(_ACTION.pack(*entry) for entry in actions[:RECENT])


def _newest_first(action: tuple[int, int, int, float, int]) -> tuple[int, int, int, float, int]:
    item, category, time_ms, value, kind = action
    return time_ms, item, kind, value, category


def _packed_tastes(tastes: dict[int, list[int]]) -> bytes:
    """The categories used last, in order of their hash, padded to a row's length."""
    entries = sorted(tastes.items())
    if len(entries) > CATEGORIES:
        last = sorted(entries, key=lambda entry: (entry[1][0], entry[0]), reverse=True)
        entries = sorted(last[:CATEGORIES])
    return b"".join(
        [
            _TASTE.pack(category, last_ms, shown & _MASK, clicks & _MASK, rated, fit(rating))
            for category, (last_ms, shown, clicks, rated, rating) in entries
        ]
    ).ljust(_TASTE_ROW, b"\0")
