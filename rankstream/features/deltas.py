"""What some events add to the counters of users, items, categories, queries and locations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.features.rows import MICROS, TOTALS

Ints = npt.NDArray[np.int64]

_MINUTE_MS: Final = 60_000


class Entity(IntEnum):
    """What stage 2 counts by; numbers as in FeatureUpdates."""

    ITEM = 1
    CATEGORY = 2
    QUERY = 3
    LOCATION = 4


@dataclass(frozen=True, eq=False)
class Additions:
    """n additions, by column; users and what is counted by are numbers of `strings`, 0 is "".

    `time_ms` (event time) and numbers have shape (n,), `amounts` has shape (n, 7), in the order of
    TOTALS.
    """

    strings: Sequence[str]
    user: Ints
    item: Ints
    category: Ints
    query: Ints
    location: Ints
    time_ms: Ints
    amounts: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, rows: npt.NDArray[np.intp]) -> Additions:
        """Some of them."""
        return Additions(
            self.strings,
            self.user[rows],
            self.item[rows],
            self.category[rows],
            self.query[rows],
            self.location[rows],
            self.time_ms[rows],
            self.amounts[rows],
        )

    def keys(self, entity: Entity) -> tuple[npt.NDArray[np.intp], Ints]:
        """The additions to keys of an entity, and which key; one to no item adds to nothing."""
        key: Ints = getattr(self, entity.name.lower())
        rows = np.flatnonzero((self.item > 0) & (key > 0))
        return rows, key[rows]


@dataclass(frozen=True, eq=False)
class Deltas:
    """Additions summed by key: `entity` (an Entity) and `key`, a number of `strings`.

    Shapes as in Additions. A string may have several numbers; number 0 is "".
    """

    strings: Sequence[str]
    entity: npt.NDArray[np.uint8]
    key: Ints
    time_ms: Ints
    amounts: Ints

    def __len__(self) -> int:
        return len(self.time_ms)

    def take(self, rows: npt.NDArray[np.intp] | slice) -> Deltas:
        """Some of them."""
        return Deltas(
            self.strings, self.entity[rows], self.key[rows], self.time_ms[rows], self.amounts[rows]
        )


def deltas_by_partition(
    additions: Additions, partition_of: Callable[[str], int]
) -> dict[int, Deltas]:
    """Additions summed by (key, entity, minute), by the partition that owns the key.

    Every window's bucket is whole minutes, so the sums lose nothing; the event
    time of a delta is the newest of its group. The strings of a partition's deltas are those that
    they name, each once.
    """
    added = [additions.keys(entity) for entity in Entity]
    rows = np.concatenate([of for of, _ in added])
    if not len(rows):
        return {}
    strings = additions.strings
    entity = np.repeat(np.arange(len(Entity)), [len(of) for of, _ in added])
    key = np.concatenate([names for _, names in added])
    time_ms, amounts = additions.time_ms[rows], additions.amounts[rows]
    names = distinct(len(strings), key)
    owner = np.array([partition_of(strings[name]) for name in names.tolist()])
    order = np.argsort(owner, kind="stable")
    names, owner = names[order], owner[order]
    # Numbers that grow with the owner: the groups of one are then beside one another.
    number = np.zeros(len(strings), np.int64)
    number[names] = np.arange(len(names))
    minute = time_ms // _MINUTE_MS
    first_minute = int(minute.min())
    minutes = int(minute.max()) - first_minute + 1
    code = (number[key] * len(Entity) + entity) * minutes + (minute - first_minute)
    assert minutes * len(Entity) * len(strings) < 1 << 62
    groups, place = np.unique(code, return_inverse=True)
    newest = np.zeros(len(groups), np.int64)
    np.maximum.at(newest, place, time_ms)
    which, column, amount = given(amounts)
    sums = np.zeros((len(groups), len(TOTALS)), np.int64)
    np.add.at(sums.reshape(-1), place[which] * len(TOTALS) + column, amount)
    keys = groups // (len(Entity) * minutes)
    entities = (groups // minutes % len(Entity) + Entity.ITEM).astype(np.uint8)
    targets, first_names = np.unique(owner, return_index=True)
    first_groups = np.searchsorted(keys, first_names)
    found = {}
    for target, (name, next_name), (group, next_group) in zip(
        targets.tolist(),
        pairwise([*first_names.tolist(), len(names)]),
        pairwise([*first_groups.tolist(), len(groups)]),
        strict=True,
    ):
        own = slice(group, next_group)
        found[target] = Deltas(
            ["", *(strings[old] for old in names[name:next_name].tolist())],
            entities[own],
            keys[own] - name + 1,
            newest[own],
            sums[own],
        )
    return found


def distinct(size: int, *columns: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The numbers below `size` that occur in columns, ascending.

    >>> distinct(9, np.array([7, 2]), np.array([2, 3])).tolist()
    [2, 3, 7]
    """
    occurs = np.zeros(size, np.bool_)
    for column in columns:
        occurs[column] = True
    return np.flatnonzero(occurs)


def given(amounts: Ints) -> tuple[Ints, Ints, Ints]:
    """Row, column and amount of those that are not 0; most of an addition's are.

    np.nonzero does the same for two dimensions in four times the time.
    """
    flat = amounts.reshape(-1)
    places = np.flatnonzero(flat != 0)
    rows, columns = np.divmod(places, amounts.shape[1])
    return rows, columns, flat[places]


def micros_of(values: npt.NDArray[np.float64]) -> Ints:
    """Fixed-point micros of values within the contract's bounds, half to even.

    >>> micros_of(np.array([0.29, -2.5e-6])).tolist()
    [290000, -2]
    """
    micros: Ints = np.rint(values * MICROS).astype(np.int64)
    return micros
