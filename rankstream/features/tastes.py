"""What each user did with each category: the 32 categories used last, in the row's own layout.

A user of more categories has all of them, up to TASTES_HELD, in a dictionary beside; past that the
one used longest ago is forgotten. So tastes depend on the set of events, not on their order, while
a user has used at most TASTES_HELD categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rankstream.features.deltas import given
from rankstream.features.rows import CATEGORIES, CATEGORY_TASTE, raw

Ints = npt.NDArray[np.int64]
Tastes = npt.NDArray[np.void]

TASTES_HELD: Final = 256
# Of what is added to a taste, by column.
AMOUNTS: Final = ("impressions", "clicks", "ratings", "rating_micros")

# last_ms, then AMOUNTS
_Held: TypeAlias = list[int]
_WIDE: Final = np.dtype([("category", "<u8"), ("last_ms", "<i8"), *((n, "<i8") for n in AMOUNTS)])


class TasteTable:
    """Tastes by row number: 1.2 kB per row, and 0.3 kB per category of users with more than 32."""

    def __init__(self) -> None:
        self._slots: Tastes = np.zeros((0, CATEGORIES), CATEGORY_TASTE)
        self._held: dict[int, dict[int, _Held]] = {}
        self._stale: set[int] = set()  # rows of _held whose slots are to be written again

    def reserve(self, rows: int) -> None:
        """Make room for rows up to `rows`."""
        if rows > len(self._slots):
            more = np.zeros((rows - len(self._slots), CATEGORIES), CATEGORY_TASTE)
            self._slots = np.concatenate([self._slots, more])

    def add(
        self, row: Ints, category: npt.NDArray[np.uint64], time_ms: Ints, amounts: Ints
    ) -> None:
        """Add what users did, in the order in which it is known.

        Args:
            row: shape (n,), below what was reserved; a row may repeat.
            category: shape (n,), id64 of its name, not 0.
            time_ms: shape (n,), event time.
            amounts: shape (n, 4), order of AMOUNTS.
        """
        if not len(row):
            return
        hashes, code = np.unique(category, return_inverse=True)
        pairs, place = np.unique(row * len(hashes) + code, return_inverse=True)
        user, wanted = pairs // len(hashes), hashes[pairs % len(hashes)]
        slot, crowded = self._slot(user, wanted)
        if len(crowded):
            aside = np.isin(row, crowded)
            self._add_held(
                row[aside].tolist(),
                category[aside].tolist(),
                time_ms[aside].tolist(),
                amounts[aside].tolist(),
            )
            kept = np.flatnonzero(~aside)
            place, time_ms, amounts = place[kept], time_ms[kept], amounts[kept]
        newest = np.zeros(len(pairs), np.int64)
        np.maximum.at(newest, place, time_ms)
        sums = np.zeros((len(pairs), len(AMOUNTS)), np.int64)
        which, part, amount = given(amounts)
        np.add.at(sums.reshape(-1), place[which] * len(AMOUNTS) + part, amount)
        mine = np.flatnonzero(slot >= 0)
        user, slot = user[mine], slot[mine]
        held = self._slots[user, slot]
        new = np.unique(user[held["category"] == 0])
        held["category"] = wanted[mine]
        held["last_ms"] = np.maximum(held["last_ms"], newest[mine])
        for column, name in enumerate(AMOUNTS):
            held[name] += sums[mine, column].astype(held[name].dtype)
        self._slots[user, slot] = held
        if len(new):
            self._slots[new] = _in_order(self._slots[new])

    def _slot(
        self, user: Ints, wanted: npt.NDArray[np.uint64]
    ) -> tuple[Ints, npt.NDArray[np.int64]]:
        """Slot of each distinct (user, category), sorted by user, and the users for whom 32 are
        too few; -1 is the slot of theirs."""
        known = self._slots["category"][user]
        matches = known == wanted[:, None]
        slot: Ints = np.where(matches.any(axis=1), matches.argmax(axis=1), -1)
        new = np.flatnonzero(slot < 0)
        if len(new):
            # The new ones of a user go behind those that it has, in order.
            first = np.searchsorted(user[new], user[new])
            slot[new] = (known[new] > 0).sum(axis=1) + np.arange(len(new)) - first
        too_many = np.unique(user[slot >= CATEGORIES])
        if self._held:
            held = [u for u in np.unique(user).tolist() if u in self._held]
            too_many = np.union1d(too_many, np.array(held, np.int64))
        if len(too_many):
            slot[np.isin(user, too_many)] = -1
        return slot, too_many

    def _add_held(
        self,
        rows: Sequence[int],
        categories: Sequence[int],
        times_ms: Sequence[int],
        amounts: Iterable[Sequence[int]],
    ) -> None:
        changed = set(rows)
        for row in changed - self._held.keys():
            self._held[row] = _opened(self._slots[row])
        for row, category, time_ms, (shown, clicks, ratings, rating) in zip(
            rows, categories, times_ms, amounts, strict=True
        ):
            held = self._held[row]
            taste = held.get(category)
            if taste is None:
                held[category] = [time_ms, shown, clicks, ratings, rating]
                if len(held) > TASTES_HELD:
                    del held[min(held, key=lambda name: (held[name][0], name))]
                continue
            taste[0] = max(taste[0], time_ms)
            taste[1] += shown
            taste[2] += clicks
            taste[3] += ratings
            taste[4] += rating
        self._stale |= changed

    def _refresh(self) -> None:
        for row in self._stale:
            self._slots[row] = _used_last(self._held[row])
        self._stale.clear()

    def fill(self, tastes: Tastes, row: Sequence[int] | Ints) -> None:
        """Write the tastes of rows, shape (n, 32), in order of category, none behind them."""
        self._refresh()
        tastes[...] = self._slots[row]

    def forget(self, rows: Sequence[int]) -> None:
        """Empty rows."""
        self._slots[rows] = 0
        self._stale.difference_update(rows)
        for row in rows:
            self._held.pop(row, None)

    def dump(
        self, rows: slice | Ints, place: Mapping[int, int]
    ) -> tuple[memoryview, list[tuple[int, int, list[int]]]]:
        """Slots of `rows`, and (place in rows, category, taste) of what is held beside.

        `place`: of each row, in `rows`.
        """
        self._refresh()
        held = [
            (place[row], category, taste)
            for row, tastes in self._held.items()
            for category, taste in tastes.items()
        ]
        return raw(self._slots[rows]), held

    def load(self, slots: bytes, held: Iterable[tuple[int, int, list[int]]]) -> None:
        """Replace the table by a dumped one, whose rows are 0, 1, ..."""
        self._slots = np.frombuffer(slots, CATEGORY_TASTE).reshape(-1, CATEGORIES).copy()
        self._held, self._stale = {}, set()
        for row, category, taste in held:
            self._held.setdefault(row, {})[category] = taste


def _in_order(slots: Tastes) -> Tastes:
    """Slots, shape (n, 32), by category, the empty ones last."""
    # 0, no category, becomes the largest.
    order = np.argsort(slots["category"] - np.uint64(1), axis=1)
    return np.take_along_axis(slots, order, axis=1)


def _opened(slots: Tastes) -> dict[int, _Held]:
    names = ("last_ms", *AMOUNTS)
    return {
        int(slot["category"]): [int(slot[name]) for name in names]
        for slot in slots
        if slot["category"]
    }


def _used_last(held: Mapping[int, _Held]) -> Tastes:
    """The 32 used last, shape (32,), by category; sums wrap as numpy's do."""
    last = sorted([(taste[0], category) for category, taste in held.items()])[-CATEGORIES:]
    categories = sorted([category for _, category in last])
    found = np.array([(category, *held[category]) for category in categories], _WIDE)
    return found.astype(CATEGORY_TASTE)
