"""Counter rows by key: a growing table that many small additions are folded into at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np

from rankstream.features.rows import (
    CATEGORY_ROW,
    COUNTERS,
    TOTALS,
    Rows,
    add,
    empty_rows,
)

# event time, impressions, clicks, views, purchases, value_micros, ratings, rating_micros
Amounts: TypeAlias = tuple[int, int, int, int, int, int, int, int]
# row, then Amounts
_Pending: TypeAlias = tuple[int, *Amounts]

COUNTER_FIELDS: Final = tuple(CATEGORY_ROW.names or ())
# Additions held back before they are folded: numpy pays off from some hundreds on.
PENDING_MAX: Final = 8192
_FIRST_ROWS: Final = 1024


class CounterTable:
    """Counters of `len(table)` keys. Additions commute, so holding them back changes nothing."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        self._rows = empty_rows(_FIRST_ROWS, dtype)
        self.index: dict[str, int] = {}  # row of each key; only `row` adds to it
        self._pending: list[_Pending] = []

    def __len__(self) -> int:
        return len(self.index)

    def row(self, key: str) -> int:
        """Row of a key, made if it is new."""
        row = self.index.get(key)
        if row is None:
            row = self.index[key] = len(self.index)
            if row == len(self._rows):
                self._rows = np.concatenate([self._rows, empty_rows(row, self._dtype)])
        return row

    def put(self, row: int, field: str, value: bytes | int | Sequence[float]) -> None:
        """Set a field of a row that is no counter."""
        self._rows[field][row] = value

    def add(self, additions: Iterable[_Pending]) -> None:
        """Add amounts to rows; a negative impression count takes one back."""
        self._pending.extend(additions)
        if len(self._pending) >= PENDING_MAX:
            self._fold()

    def rows(self) -> Rows:
        """All rows, with everything folded: a view, shape (len(self),)."""
        self._fold()
        return self._rows[: len(self.index)]

    def _fold(self) -> None:
        if not self._pending:
            return
        matrix = np.array(self._pending, np.int64)
        self._pending.clear()
        index, time_ms, value_micros = matrix[:, 0], matrix[:, 1], matrix[:, 6]
        counts = matrix[:, 2:6].astype(np.int32)
        add(self._rows, index, time_ms, counts, value_micros)
        amounts = matrix[:, 2:]
        amounts[:, : len(COUNTERS)] = counts
        assert amounts.shape[1] == len(TOTALS)
        np.add.at(self._rows["totals"], index, amounts)
        np.maximum.at(self._rows["last_ms"], index, time_ms)

    def dump(self) -> dict[str, bytes]:
        """Keys and rows, to go on from with `load`."""
        return {"keys": json.dumps(list(self.index)).encode(), "rows": self.rows().tobytes()}

    def load(self, parts: dict[str, bytes]) -> None:
        """Replace the table by a dumped one."""
        keys = json.loads(parts["keys"])
        self._pending.clear()
        self.index = {key: row for row, key in enumerate(keys)}
        self._rows = empty_rows(max(_FIRST_ROWS, len(keys)), self._dtype)
        self._rows[: len(keys)] = np.frombuffer(parts["rows"], self._dtype)


def packed(rows: Rows) -> list[bytes]:
    """Each row's bytes."""
    whole, size = rows.tobytes(), rows.dtype.itemsize
    return [whole[start : start + size] for start in range(0, len(whole), size)]
