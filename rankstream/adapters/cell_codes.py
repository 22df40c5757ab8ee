"""Codes of 8 bits in the cells of an index: the best rows of some cells, and scores of some rows.

A code says what a vector is off its cell's mean, so the score of a row is that of the mean, which
is known for each cell, and a product of the code with weights that the query gives. Weights are
rounded to 16 bits: a score is then off by less than a fiftieth of what codes of 8 bits are off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss
import numba
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from rankstream.adapters.index_file import invalid_index
from rankstream.contracts.subset import Rows

Floats = npt.NDArray[np.float32]

# Rows are kept until there are so many times k, then the k best of them; and no fewer.
_KEPT_PER_K: Final = 4
_KEPT_MIN: Final = 2_048
_SCORED_AT_ONCE: Final = 2_048  # rows; their codes as floats stay in the cache
_WEIGHT_MAX: Final = 32_767
_SUM_MAX: Final = 2.0**31 - 2.0**16
_UNIT_MIN: Final = 1e-30
_LEVELS: Final = 255
_EVERY: Final = np.empty(0, np.uint64)

types: Any = numba.types  # some of it has no types


class CellCodes:
    """The codes of an index that was mapped from a file, by cell."""

    def __init__(self, index: Any, path: Path) -> None:
        """Those of a faiss.IndexIVFScalarQuantizer.

        Raises: InvalidArtifact: of other codes, or its rows are not in the order of its cells.
        """
        if not index.by_residual or index.sq.qtype != faiss.ScalarQuantizer.QT_8bit:
            raise invalid_index(path, "has cells of other codes than QT_8bit off a cell's mean")
        self._mapped = index  # as long as it lives
        lists, cells, self._width = index.invlists, int(index.nlist), int(index.code_size)
        self.sizes = np.array([lists.list_size(cell) for cell in range(cells)], np.int64)
        self.bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        full = np.flatnonzero(self.sizes)
        for cell in full.tolist():
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), int(self.sizes[cell]))
            if ids[0] != self.bounds[cell] or ids[-1] != self.bounds[cell + 1] - 1:
                raise invalid_index(path, f"has rows out of order in cell {cell}")
        address = np.array([int(lists.get_codes(cell)) for cell in full.tolist()], np.int64)
        if (np.diff(address) <= 0).any():
            raise invalid_index(path, "has cells that are not in order in the file")
        span = int(address[-1] - address[0] + self.sizes[full[-1]] * self._width)
        self._codes = faiss.rev_swig_ptr(lists.get_codes(int(full[0])), span)
        # Where the code of row 0 would be if its cell began there: + row * width is the row's.
        self._origin = np.zeros(cells, np.int64)
        self._origin[full] = address - address[0] - self.bounds[full] * self._width
        trained = faiss.vector_to_array(index.sq.trained)
        self._least, self._range = trained[: self._width], trained[self._width :]

    @property
    def dimensions(self) -> int:
        return self._width

    def nearest(
        self,
        query: Floats,
        k: int,
        cells: Rows,
        centre: Floats,
        words: npt.NDArray[np.uint64] | None,
    ) -> tuple[Rows, Floats]:
        """The k best rows of cells that hold as many, best first, and their scores.

        Args:
            centre: scores of the cells' means.
            words: bits of the rows that may come back, of which the cells hold k; None: all.
        """
        weight, base = self._weights(query)
        steepest, total = float(np.abs(weight).max()), float(np.abs(weight).sum())
        unit = max(steepest / _WEIGHT_MAX, total * _LEVELS / _SUM_MAX, _UNIT_MIN)
        whole = np.round(weight / unit).astype(np.int16)
        # Rounding is made good for a code in the middle; the others are off by half as much.
        base += _LEVELS / 2 * float((weight - unit * whole).sum())
        inside = int(self.sizes[cells].sum())
        kept = min(max(_KEPT_PER_K * k, _KEPT_MIN), inside) + 1
        rows, scores = np.empty(kept, np.int64), np.empty(kept, np.float32)
        n = _scan(
            (self._codes, self.bounds, self._origin),
            whole,
            (np.float32(unit), np.float32(base)),
            cells,
            centre,
            _EVERY if words is None else words,
            k,
            rows,
            scores,
        )
        return best(rows[:n], scores[:n], k)

    def scores(self, query: Floats, rows: Rows, mean: Floats) -> Floats:
        """Inner products of the query with the decoded vectors of rows; `mean`: of each cell."""
        cell = np.searchsorted(self.bounds, rows, side="right") - 1
        place = self._origin[cell] + rows * self._width
        codes = sliding_window_view(self._codes, self._width)
        weight, base = self._weights(query)
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _SCORED_AT_ONCE):
            part = slice(start, start + _SCORED_AT_ONCE)
            np.dot(codes[place[part]].astype(np.float32), weight, out=scores[part])
        # Rows of a cell are neighbours: its mean is scored once for them.
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        scores += np.repeat(mean[cell[first]] @ query, np.diff(first, append=len(cell)))
        return scores + np.float32(base)

    def _weights(self, query: Floats) -> tuple[Floats, float]:
        """The weight of each component of a code, and what is added to their sum."""
        # A component is least + range * (code + 1/2) / 255.
        weight = (self._range * query / np.float32(_LEVELS)).astype(np.float32)
        return weight, float(self._least @ query) + 0.5 * float(weight.sum())


def best(rows: Rows, scores: Floats, k: int) -> tuple[Rows, Floats]:
    """The k rows of largest score, best first, both arguments of shape (n,), n >= k."""
    if k < len(rows):
        top = np.argpartition(-scores, k)[:k]
        rows, scores = rows[top], scores[top]
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]


def _array(dtype: Any, *, readonly: bool = False) -> Any:
    return types.Array(dtype, 1, "C", readonly=readonly)


# Compiled when this module is loaded, not when the first answer waits.
_LONGS, _REALS = _array(types.int64), _array(types.float32)
_CELLS: Final = types.Tuple((_array(types.uint8), _LONGS, _LONGS))
_LINE: Final = types.Tuple((types.float32, types.float32))


@numba.njit([types.int64(_LONGS, _REALS, types.int64, types.int64)], nogil=True, cache=True)
def _keep(rows: Any, scores: Any, n: Any, k: Any) -> Any:
    """Bring the k best of the first n to the front, in the order that they are in."""
    least = np.partition(scores[:n], n - k)[n - k]
    ties = k
    for i in range(n):
        ties -= scores[i] > least
    kept = 0
    for i in range(n):
        if scores[i] > least or (scores[i] == least and ties > 0):
            ties -= scores[i] == least
            rows[kept], scores[kept] = rows[i], scores[i]
            kept += 1
    return kept


@numba.njit([types.int64(types.float32)], nogil=True, cache=True)
def _whole(x: Any) -> Any:
    """The largest whole number up to x, or one that no sum of products reaches."""
    return np.int64(np.floor(min(max(x, np.float32(-1e12)), np.float32(1e12))))


@numba.njit(
    [
        types.int64(
            _CELLS,
            _array(types.int16),
            _LINE,
            _LONGS,
            _REALS,
            _array(types.uint64, readonly=True),
            types.int64,
            _LONGS,
            _REALS,
        )
    ],
    nogil=True,
    cache=True,
)
def _scan(
    of: Any,
    weight: Any,
    line: Any,
    cells: Any,
    centre: Any,
    words: Any,
    k: Any,
    rows: Any,
    scores: Any,
) -> Any:
    """Put rows of cells, the k best among them, into `rows` and `scores`; how many.

    `of`: codes, and of each cell its first row and its origin; `line`: a score is the sum of weight
    x code times its first, plus its second and the mean's; `words`: bits of rows, or empty.
    """
    codes, bounds, origin = of
    unit, base = line
    width, every, most = len(weight), len(words) == 0, len(rows)
    n, least = 0, np.float32(-np.inf)
    for c in range(len(cells)):
        cell = cells[c]
        start = base + centre[c]
        limit = _whole((least - start) / unit)
        row = bounds[cell] - 1
        while row + 1 < bounds[cell + 1]:
            row += 1
            if not every:
                word = words[row >> 6] >> np.uint64(row & 63)
                if not word & np.uint64(1):
                    row = row if word else row | 63  # none of the word's other rows may come back
                    continue
            at = origin[cell] + row * width
            code = codes[at : at + width]
            total = np.int32(0)
            for d in range(width):
                total += np.int32(weight[d]) * np.int32(code[d])
            if total > limit:
                rows[n], scores[n] = row, start + unit * total
                n += 1
                if n == most:
                    n = _keep(rows, scores, n, k)
                    least = scores[:n].min()
                    limit = _whole((least - start) / unit)
    return n
