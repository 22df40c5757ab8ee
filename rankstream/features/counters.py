"""Counters by key: a growing table of rings and totals that many additions are folded into at once.

A column for each field, so that additions go to flat arrays; `packed` gives whole rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.features.deltas import given
from rankstream.features.rows import (
    BUCKET_MS,
    BUCKETS,
    CATEGORY_ROW,
    COUNTERS,
    FIRST_SLOT,
    SLOTS,
    TOTALS,
    WINDOW_OF,
    Rows,
    buckets_held,
    raw,
)

Ints = npt.NDArray[np.int64]

# What an addition adds, by column, in the order of TOTALS; the first four are COUNTERS.
_VALUE: Final = TOTALS.index("value_micros")
_FIRST_ROWS: Final = 256
_FIRST_SLOT: Final = np.array(FIRST_SLOT)[:, None]
# The fields of a row that are counters, and what the table holds of each key.
_FIELDS: Final = ("head", "counts", "value_micros", "totals", "last_ms")
_COLUMNS: Final = {name: CATEGORY_ROW[name] for name in _FIELDS}


class CounterTable:
    """Counters of `len(table)` keys, about 0.8 kB each.

    A forgotten key's row is given to the next new one.
    """

    def __init__(self) -> None:
        self.index: dict[str, int] = {}  # row of each key; only `row` and `forget` change it
        self._free: list[int] = []
        self._size = 0  # rows in use or free
        self._in_order = True  # the rows of the keys in `index` are 0, 1, ...
        self._reserve(_FIRST_ROWS)

    def _reserve(self, rows: int) -> None:
        self._columns = {
            name: np.zeros((rows, *column.shape), column.base) for name, column in _COLUMNS.items()
        }

    def __len__(self) -> int:
        return len(self.index)

    @property
    def capacity(self) -> int:
        """Rows that there is room for; every row is below."""
        return len(self._columns["last_ms"])

    def row(self, key: str) -> int:
        """Row of a key, made if it is new."""
        row = self.index.get(key)
        if row is None:
            if self._free:
                row = self._free.pop()
            else:
                row = self._size
                self._size += 1
                if row == self.capacity:
                    self._grow()
            self.index[key] = row
        return row

    def _grow(self) -> None:
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.zeros_like(column)])

    def add(self, row: Ints, time_ms: Ints, amounts: Ints) -> None:
        """Add amounts to rows; a negative count takes one back.

        Args:
            row: shape (n,); a row may repeat.
            time_ms: shape (n,), event time.
            amounts: shape (n, 7), order of TOTALS.

        A bucket older than its ring is in no window any more and adds to the totals only. The
        result depends on the set of additions, not on their order or grouping.
        """
        if not len(row):
            return
        columns = self._columns
        touched, place = np.unique(row, return_inverse=True)
        last_ms = columns["last_ms"][touched]
        np.maximum.at(last_ms, place, time_ms)
        columns["last_ms"][touched] = last_ms
        newest = self._advance(touched, last_ms)
        bucket = time_ms // BUCKET_MS[:, None]
        fits = bucket > newest.take(place, axis=1) - BUCKETS[:, None]
        slot = row * SLOTS + (_FIRST_SLOT + bucket % BUCKETS[:, None])
        # One amount of most additions is not zero: add those, one by one, to flat arrays.
        which, total, amount = given(amounts)
        np.add.at(columns["totals"].reshape(-1), row[which] * len(TOTALS) + total, amount)
        counted = np.flatnonzero(total < len(COUNTERS))
        of = which[counted]
        flat = slot.take(of, axis=1) * len(COUNTERS) + total[counted]
        _add(columns["counts"], flat, amount[counted], fits.take(of, axis=1))
        valued = np.flatnonzero(total == _VALUE)
        if len(valued):
            of = which[valued]
            fit = fits.take(of, axis=1)
            _add(columns["value_micros"], slot.take(of, axis=1), amount[valued], fit)

    def _advance(self, touched: Ints, last_ms: Ints) -> Ints:
        """Move rings on to their newest event; the newest buckets, shape (windows, touched)."""
        heads = self._columns["head"]
        before = heads[touched].T
        newest: Ints = np.maximum(before, last_ms // BUCKET_MS[:, None])
        if (newest == before).all():
            return newest
        heads[touched] = newest.T
        # Slots of buckets in (before, newest] hold buckets that have left the ring.
        slot, which = np.nonzero(buckets_held(newest) > before[WINDOW_OF])
        self._columns["counts"][touched[which], slot] = 0
        self._columns["value_micros"][touched[which], slot] = 0
        return newest

    def rows(self) -> slice | Ints:
        """The row of every key, in order of the keys' arrival."""
        if self._in_order:
            return slice(len(self.index))
        return np.fromiter(self.index.values(), np.int64, len(self.index))

    def last_ms(self, row: Ints) -> Ints:
        """Newest event time of rows, shape (n,); 0: none."""
        last: Ints = self._columns["last_ms"][row]
        return last

    def fill(self, rows: Rows, row: Sequence[int] | Ints) -> None:
        """Write the counters of table rows into `rows`, shape (n,), of any row dtype."""
        for name, column in self._columns.items():
            rows[name] = column[row]

    def put(self, row: Ints, rows: Rows) -> None:
        """Replace the counters of table rows by those of `rows`, shape (n,)."""
        for name, column in self._columns.items():
            column[row] = rows[name]

    def forget(self, keys: Iterable[str]) -> list[int]:
        """Drop keys; the rows that they had."""
        rows = [self.index.pop(key) for key in keys]
        self._in_order = False
        for column in self._columns.values():
            column[rows] = 0
        self._free += rows
        return rows

    def dump(self) -> dict[str, bytes | memoryview]:
        """Keys and counters in order of the keys' arrival, to go on from with `load`.

        Good until the next addition.
        """
        rows = self.rows()
        return {
            "keys": json.dumps(list(self.index)).encode(),
            **{name: raw(column[rows]) for name, column in self._columns.items()},
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the table by a dumped one; its keys have the rows 0, 1, ..."""
        keys = json.loads(parts["keys"])
        self.index = {key: row for row, key in enumerate(keys)}
        self._free, self._size, self._in_order = [], len(keys), True
        self._reserve(max(_FIRST_ROWS, len(keys)))
        for name, column in self._columns.items():
            loaded = np.frombuffer(parts[name], column.dtype)
            column[: len(keys)] = loaded.reshape(len(keys), *column.shape[1:])


def _add(column: Ints, flat: Ints, amount: Ints, fits: npt.NDArray[np.bool_]) -> None:
    """Add to places of a column, shape (windows, n), where they fit; `amount` has shape (n,)."""
    amounts = np.broadcast_to(amount.astype(column.dtype), flat.shape)
    if fits.all():
        np.add.at(column.reshape(-1), flat.reshape(-1), amounts.reshape(-1))
    else:
        np.add.at(column.reshape(-1), flat[fits], amounts[fits])


def packed(rows: Rows) -> list[bytes]:
    """Each row's bytes."""
    whole, size = rows.tobytes(), rows.dtype.itemsize
    return [whole[start : start + size] for start in range(0, len(whole), size)]
