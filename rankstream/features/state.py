"""What is remembered of each user, and how events change it.

The result depends on the set of events and not on their order: counters add up, recent actions and
attributes are ordered by event time with ties broken by content; of tastes see `tastes`.

About 2.4 kB per user, 29 bytes per recent action and 16 per rating that is remembered.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id32, id64
from rankstream.features.attributes import USER_ATTRIBUTES
from rankstream.features.counters import CounterTable, packed
from rankstream.features.deltas import Additions, distinct
from rankstream.features.rows import (
    CONTEXT_ATTRIBUTES,
    RATED,
    RECENT,
    RECENT_ACTION,
    TOTALS,
    USER_ROW,
    Rows,
    raw,
)
from rankstream.features.tastes import AMOUNTS, TasteTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RECENT_KINDS: Final = frozenset(
    int(kind) for kind in (Kind.CLICK, Kind.VIEW, Kind.RATE, Kind.PURCHASE)
)
# Attributes that events state of a user: the event's kind and the name.
STATED: Final = (
    *((Kind.USER_UPDATE, name) for name in USER_ATTRIBUTES),
    *((Kind.CONTEXT, known.name) for known in CONTEXT_ATTRIBUTES),
)
# Beyond this a number is no attribute: float32 holds it and so does any scaler.
ATTRIBUTE_MAX: Final = 1e9
SESSION_FIELDS: Final = (
    "session_start_ms",
    "session_last_ms",
    "session_impressions",
    "session_clicks",
)

# row of the user, item, category, event time, value, kind
Action: TypeAlias = tuple[int, str, str, int, float, int]

_ACTION: Final = struct.Struct("<QQqfB")
_RECENT_BYTES: Final = RECENT * _ACTION.size
_RATING: Final = np.dtype([("time_ms", "<i8"), ("item", "<u4"), ("value", "<f4")])
_RATING_STRUCT: Final = struct.Struct("<qIf")
_RATED_BYTES: Final = RATED * _RATING.itemsize
_RATE: Final = int(Kind.RATE)
_TASTE_AMOUNTS: Final = [TOTALS.index(name) for name in AMOUNTS]
assert _ACTION.size == RECENT_ACTION.itemsize
assert _RATING_STRUCT.size == _RATING.itemsize

hash_of = lru_cache(maxsize=1 << 14)(id64)


class UserStates:
    """The users of one partition."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._counters = CounterTable()
        self._tastes = TasteTable()
        self._recent: list[bytes] = []  # packed RECENT_ACTION, newest first
        self._rated: list[bytes] = []  # packed _RATING, newest first
        self._sessions = np.zeros((0, len(SESSION_FIELDS)), np.int64)
        self._changed_at = np.zeros(0, np.int64)
        self._newest_ms = np.zeros(0, np.int64)  # event of any kind
        self._expired_ms = 0  # what was asked of `expire` last
        self._stated = np.zeros((0, len(STATED)), np.float32)  # nan: unknown
        self._stated_ms = np.zeros((0, len(STATED)), np.int64)
        self._reserve()

    def _reserve(self) -> None:
        """Room in every table for what the counters have room for."""
        more = self._counters.capacity - len(self._changed_at)
        if more:
            self._recent += [b""] * more
            self._rated += [b""] * more
            self._tastes.reserve(self._counters.capacity)
            none = np.zeros((more, len(SESSION_FIELDS)), np.int64)
            self._sessions = np.concatenate([self._sessions, none])
            self._changed_at = np.concatenate([self._changed_at, np.full(more, -1)])
            self._newest_ms = np.concatenate([self._newest_ms, np.zeros(more, np.int64)])
            unknown = np.full((more, len(STATED)), np.nan, np.float32)
            self._stated = np.concatenate([self._stated, unknown])
            never = np.zeros((more, len(STATED)), np.int64)
            self._stated_ms = np.concatenate([self._stated_ms, never])

    def __len__(self) -> int:
        return len(self._counters)

    def rows(self, users: Sequence[str], expiry_ms: int = 0) -> list[int]:
        """Row of each user, made if it is new; good until users expire.

        A user whose newest event is before `expiry_ms` is forgotten first.
        """
        if expiry_ms:
            self._forget([user for user in users if self._is_old(user, expiry_ms)])
        row = self._counters.row
        rows = [row(user) for user in users]
        self._reserve()
        return rows

    def _is_old(self, user: str, expiry_ms: int) -> bool:
        row = self._counters.index.get(user)
        return row is not None and bool(self._newest_ms[row] < expiry_ms)

    def expire(self, expiry_ms: int) -> set[str]:
        """Forget the users whose newest event is before then; who they were."""
        if expiry_ms <= self._expired_ms:
            return set()
        self._expired_ms = expiry_ms
        index = self._counters.index
        rows = np.fromiter(index.values(), np.int64, len(index))
        names = list(index)
        old = [names[k] for k in np.flatnonzero(self._newest_ms[rows] < expiry_ms).tolist()]
        self._forget(old)
        return set(old)

    def _forget(self, users: Sequence[str]) -> None:
        if not users:
            return
        rows = self._counters.forget(users)
        self._tastes.forget(rows)
        self._sessions[rows] = 0
        self._changed_at[rows] = -1
        self._newest_ms[rows] = 0
        self._stated[rows], self._stated_ms[rows] = np.nan, 0
        for row in rows:
            self._recent[row] = self._rated[row] = b""

    def count(self, row: Ints, additions: Additions) -> None:
        """Add to counters and to tastes; `row`, shape (n,), is where each addition's user is."""
        self._counters.add(row, additions.time_ms, additions.amounts)
        named = np.flatnonzero(additions.category)
        category = additions.category[named]
        hashes = np.zeros(len(additions.strings), np.uint64)
        for number in distinct(len(hashes), category).tolist():
            hashes[number] = hash_of(additions.strings[number])
        amounts = additions.amounts[named][:, _TASTE_AMOUNTS]
        self._tastes.add(row[named], hashes[category], additions.time_ms[named], amounts)

    def act(self, actions: Iterable[Action]) -> None:
        """Remember actions of RECENT_KINDS."""
        recents, rated = self._recent, self._rated
        for row, item, category, time_ms, value, kind in actions:
            action = _ACTION.pack(
                hash_of(item), hash_of(category) if category else 0, time_ms, value, kind
            )
            recent = recents[row]
            if not recent or time_ms > int.from_bytes(recent[16:24], "little"):
                recents[row] = action + recent[: _RECENT_BYTES - len(action)]
            else:
                recents[row] = _inserted(recent, action)
            if kind == _RATE:
                rating = _RATING_STRUCT.pack(time_ms, id32(hash_of(item)), value)
                rated[row] = _with_rating(rated[row], rating)

    def learn(self, row: Ints, attribute: Ints, time_ms: Ints, value: Floats) -> None:
        """Note attributes of users: of each the newest, the largest of equally new.

        Args:
            row: shape (n,), where each one's user is; a user may repeat.
            attribute: shape (n,), places in STATED.
            time_ms: shape (n,), event time.
            value: shape (n,), within ±ATTRIBUTE_MAX.
        """
        if not len(row):
            return
        # Adding 0 leaves no -0, which is as large as 0 but not the same bits.
        stated = value.astype(np.float32) + np.float32(0.0)
        of = row * len(STATED) + attribute
        order = np.lexsort((stated, time_ms, of))
        last = order[np.append(of[order][1:] != of[order][:-1], True)]
        of, time_ms, stated = of[last], time_ms[last], stated[last]
        known, known_ms = self._stated.reshape(-1), self._stated_ms.reshape(-1)
        is_tie = time_ms == known_ms[of]
        wins = (time_ms > known_ms[of]) | (is_tie & (stated > known[of]))
        known[of[wins]], known_ms[of[wins]] = stated[wins], time_ms[wins]

    def sessions(self, rows: Sequence[int], latest: Sequence[Sequence[int]]) -> None:
        """Set the latest session of users: SESSION_FIELDS of each."""
        if rows:
            self._sessions[rows] = latest

    def changed(self, row: Ints, offset: Ints, time_ms: Ints) -> None:
        """Note which records changed users, in order, and when; shapes (n,)."""
        self._changed_at[row] = offset
        np.maximum.at(self._newest_ms, row, time_ms)

    def packed(self, users: Iterable[str]) -> list[tuple[str, bytes]]:
        """USER_ROW bytes of those users that are known."""
        index = self._counters.index
        found = [(user, row) for user in users if (row := index.get(user)) is not None]
        if not found:
            return []
        rows = self._packed([row for _, row in found])
        return list(zip((user for user, _ in found), packed(rows), strict=True))

    def _packed(self, index: list[int]) -> Rows:
        rows = np.empty(len(index), USER_ROW)
        self._counters.fill(rows, index)
        rows["partition"] = self._partition
        rows["offset"] = self._changed_at[index]
        rows["items_offset"] = -1
        recent = b"".join([self._recent[row].ljust(_RECENT_BYTES, b"\0") for row in index])
        rows["recent"] = np.frombuffer(recent, RECENT_ACTION).reshape(len(index), RECENT)
        rated = b"".join([self._rated[row].ljust(_RATED_BYTES, b"\0") for row in index])
        ratings = np.frombuffer(rated, _RATING).reshape(len(index), RATED)
        for name in ("item", "value"):
            rows["rated"][name] = ratings[name]
        self._tastes.fill(rows["tastes"], index)
        for column, name in enumerate(SESSION_FIELDS):
            rows[name] = self._sessions[index, column]
        of_user = len(USER_ATTRIBUTES)
        stated = self._stated[index]
        rows["attributes"] = stated[:, :of_user]
        rows["context"]["value"] = stated[:, of_user:]
        rows["context"]["time_ms"] = self._stated_ms[index, of_user:]
        return rows

    def dump(self) -> dict[str, bytes | memoryview]:
        """All users, to go on from with `load`; good until the next change."""
        rows = self._counters.rows()
        listed = list(self._counters.index.values())
        place = {row: place for place, row in enumerate(listed)}
        slots, held = self._tastes.dump(rows, place)
        recent = [self._recent[row] for row in listed]
        rated = [self._rated[row] for row in listed]
        rest = {
            "recent": [len(actions) for actions in recent],
            "rated": [len(ratings) for ratings in rated],
            "held": held,
            "expired_ms": self._expired_ms,
        }
        return {
            **self._counters.dump(),
            "recent": b"".join(recent),
            "rated": b"".join(rated),
            "tastes": slots,
            "sessions": raw(self._sessions[rows]),
            "changed_at": raw(self._changed_at[rows]),
            "newest_ms": raw(self._newest_ms[rows]),
            "stated": raw(self._stated[rows]),
            "stated_ms": raw(self._stated_ms[rows]),
            "rest": json.dumps(rest, separators=(",", ":")).encode(),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        self._counters.load(parts)
        rest = json.loads(parts["rest"])
        self._recent = _cut(parts["recent"], rest["recent"])
        self._rated = _cut(parts["rated"], rest["rated"])
        self._tastes.load(parts["tastes"], rest["held"])
        sessions = np.frombuffer(parts["sessions"], np.int64)
        self._sessions = sessions.reshape(-1, len(SESSION_FIELDS)).copy()
        self._changed_at = np.frombuffer(parts["changed_at"], np.int64).copy()
        self._newest_ms = np.frombuffer(parts["newest_ms"], np.int64).copy()
        stated = np.frombuffer(parts["stated"], np.float32)
        self._stated = stated.reshape(-1, len(STATED)).copy()
        stated_ms = np.frombuffer(parts["stated_ms"], np.int64)
        self._stated_ms = stated_ms.reshape(-1, len(STATED)).copy()
        self._expired_ms = rest["expired_ms"]
        self._reserve()


def _cut(joined: bytes, sizes: Sequence[int]) -> list[bytes]:
    """The pieces that were joined."""
    return [joined[a:b] for a, b in pairwise(np.cumsum([0, *sizes]).tolist())]


def _with_rating(rated: bytes, rating: bytes) -> bytes:
    """The newest RATED of these and one more; ties of time go by item and value."""
    own = _RATING_STRUCT.unpack(rating)
    at, size = 0, len(rating)
    while at < len(rated) and _RATING_STRUCT.unpack_from(rated, at) > own:
        at += size
    return (rated[:at] + rating + rated[at:])[:_RATED_BYTES]


def _inserted(recent: bytes, action: bytes) -> bytes:
    """The newest RECENT of these and one more; ties of time go by content."""
    own = _newest_first(_ACTION.unpack(action))
    # What comes late is mostly not very late: look from the newest on.
    at, size = 0, _ACTION.size
    while at < len(recent) and _newest_first(_ACTION.unpack_from(recent, at)) > own:
        at += size
    return (recent[:at] + action + recent[at:])[:_RECENT_BYTES]


def _newest_first(action: tuple[int, int, int, float, int]) -> tuple[int, int, int, float, int]:
    item, category, time_ms, value, kind = action
    return time_ms, item, kind, value, category
