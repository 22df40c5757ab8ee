"""What each user did with each category: the 32 categories used last, in the row's own layout.

A user of more categories has all of them, up to TASTES_HELD, in a table beside; past that the
one used longest ago is forgotten. So tastes depend on the set of events, not on their order, while
a user has used at most TASTES_HELD categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rankstream.features import fold_kernel
from rankstream.features.rows import CATEGORIES, CATEGORY_TASTE, raw

Ints = npt.NDArray[np.int64]
Tastes = npt.NDArray[np.void]

TASTES_HELD: Final = 256
# Of what is added to a taste, by column.
AMOUNTS: Final = ("impressions", "clicks", "ratings", "rating_micros")
_FIRST_PLACES: Final = 16

_Taste: TypeAlias = list[int]  # last_ms, then AMOUNTS


class _Crowded(NamedTuple):
    """Tastes of rows with more than 32 categories, by place; 12 kB each."""

    place_of: npt.NDArray[np.int32]  # of each row; -1: it is not crowded
    sizes: Ints  # tastes at each place
    names: npt.NDArray[np.uint64]  # shape (places, TASTES_HELD + 1): there is room for one more
    held: Ints  # shape (places, TASTES_HELD + 1, 5)
    stale: npt.NDArray[np.uint8]  # whether the row's slots are to be written again
    free: Ints  # places that nobody has
    free_n: Ints  # shape (1,), how many


class TasteTable:
    """Tastes by row number: 1.2 kB per row, and 12 kB more of users with more than 32."""

    def __init__(self) -> None:
        self._slots: Tastes = np.zeros((0, CATEGORIES), CATEGORY_TASTE)
        self._crowded = _places(0, 0)

    def reserve(self, rows: int) -> None:
        """Make room for rows up to `rows`."""
        if rows > len(self._slots):
            more = np.zeros((rows - len(self._slots), CATEGORIES), CATEGORY_TASTE)
            self._slots = np.concatenate([self._slots, more])
            place_of = np.append(self._crowded.place_of, np.full(len(more), -1, np.int32))
            self._crowded = self._crowded._replace(place_of=place_of)

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
        done = 0
        while done < len(row):
            done = fold_kernel.add_tastes(
                self._slots, tuple(self._crowded), row, category, time_ms, amounts, done
            )
            if done < len(row):
                self._make_places()

    def _make_places(self) -> None:
        """Make as many places again; none is free."""
        old = self._crowded
        places = len(old.sizes)
        more = _places(len(old.place_of), max(places, _FIRST_PLACES))
        self._crowded = _Crowded(
            old.place_of,
            np.append(old.sizes, more.sizes),
            np.concatenate([old.names, more.names]),
            np.concatenate([old.held, more.held]),
            np.append(old.stale, more.stale),
            np.append(more.free + places, old.free),
            more.free_n,
        )

    def fill(self, tastes: Tastes, row: Sequence[int] | Ints) -> None:
        """Write the tastes of rows, shape (n, 32), in order of category, none behind them."""
        rows = np.asarray(row, np.int64)
        fold_kernel.refresh(self._slots, tuple(self._crowded), rows)
        tastes[...] = self._slots[rows]

    def forget(self, rows: Sequence[int]) -> None:
        """Empty rows."""
        crowded = self._crowded
        self._slots[rows] = 0
        places = crowded.place_of[rows]
        places = places[places >= 0]
        crowded.place_of[rows] = -1
        crowded.stale[places] = 0
        free = int(crowded.free_n[0])
        crowded.free[free : free + len(places)] = places
        crowded.free_n[0] += len(places)

    def dump(
        self, rows: slice | Ints, place: Mapping[int, int]
    ) -> tuple[memoryview, list[tuple[int, int, list[int]]]]:
        """Slots of `rows`, and (place in rows, category, taste) of what is held beside.

        `place`: of each row, in `rows`.
        """
        numbers = np.fromiter(place, np.int64, len(place))
        crowded = self._crowded
        fold_kernel.refresh(self._slots, tuple(crowded), numbers)
        held = []
        for row in numbers[crowded.place_of[numbers] >= 0].tolist():
            own = crowded.place_of[row]
            size = crowded.sizes[own]
            names, tastes = crowded.names[own, :size], crowded.held[own, :size]
            held += [
                (place[row], name, taste)
                for name, taste in zip(names.tolist(), tastes.tolist(), strict=True)
            ]
        return raw(self._slots[rows]), held

    def load(self, slots: bytes, held: Iterable[tuple[int, int, _Taste]]) -> None:
        """Replace the table by a dumped one, whose rows are 0, 1, ..."""
        self._slots = np.frombuffer(slots, CATEGORY_TASTE).reshape(-1, CATEGORIES).copy()
        of_row: dict[int, list[tuple[int, _Taste]]] = {}
        for row, category, taste in held:
            of_row.setdefault(row, []).append((category, taste))
        crowded = self._crowded = _places(len(self._slots), len(of_row))
        crowded.free_n[0] = 0
        for place, (row, tastes) in enumerate(of_row.items()):
            size = len(tastes)
            crowded.place_of[row], crowded.sizes[place] = place, size
            crowded.names[place, :size] = [category for category, _ in tastes]
            crowded.held[place, :size] = [taste for _, taste in tastes]


def _places(rows: int, places: int) -> _Crowded:
    """So many rows, none crowded, and so many places, all of them free."""
    return _Crowded(
        np.full(rows, -1, np.int32),
        np.zeros(places, np.int64),
        np.zeros((places, TASTES_HELD + 1), np.uint64),
        np.zeros((places, TASTES_HELD + 1, fold_kernel.HELD), np.int64),
        np.zeros(places, np.uint8),
        np.arange(places),
        np.array([places]),
    )
