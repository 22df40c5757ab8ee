"""Counters by key: a growing table of rings and totals that many additions are folded into at once.

A column for each field, so that one compiled loop takes all additions; `packed` gives whole rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.features import fold_kernel
from rankstream.features.rows import CATEGORY_ROW, Rows, raw

Ints = npt.NDArray[np.int64]

_FIRST_ROWS: Final = 256
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
        held = self._columns
        fold_kernel.count(
            *(held[name] for name in ("head", "counts", "value_micros", "totals", "last_ms")),
            row,
            time_ms,
            amounts,
        )

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


def packed(rows: Rows) -> list[bytes]:
    """Each row's bytes."""
    whole, size = rows.tobytes(), rows.dtype.itemsize
    return [whole[start : start + size] for start in range(0, len(whole), size)]
