"""The Index port on FAISS: inverted cells of 8-bit codes, for tables too large for exact search.

The rows of the table are in the order of the cells, so a cell is a range of rows: no map leads from
a row to its code, and one pass over the bits of a subset says how many of its rows are in each
cell. `cell_choice` says which cells are searched for it. FAISS searches them if the subset has many
of their rows; else those rows are scored one by one, and all rows of a very small subset are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from rankstream.adapters.cell_choice import CellMoments, choose
from rankstream.adapters.index_file import invalid_index
from rankstream.contracts.manifest import Manifest
from rankstream.contracts.subset import Rows, Subset, whole
from rankstream.errors import InvalidArtifact

Floats = npt.NDArray[np.float32]

COVERAGE: Final = "index_coverage"

# So many rows that must not come back are asked for too much and dropped; of more, bits are made.
# Measured at 1 M rows, CPU ms per query, dropped or by bits: 50 rows .45 or .52, 1,000 .90 or .98,
# 3,000 2.3 or .88.
_DROPPED_MAX: Final = 1_000
# A row of a subset that is scored by itself costs as much as passing over so many in a cell.
_SCAN_COST: Final = 8
_SCANNED_PER_K: Final = 4  # a subset of so many times k rows is scored without a look at cells
_SCANNED_AT_ONCE: Final = 2_048  # rows; their codes as floats stay in the cache

_faiss: Any = faiss


def coverage_of(manifest: Manifest) -> float | None:
    """How far its index is to be searched, from a manifest; None: it is exact.

    Raises: InvalidArtifact: not in (0, 1).
    """
    coverage = manifest.parameters.get(COVERAGE)
    if coverage is None:
        return None
    if not isinstance(coverage, float) or not 0 < coverage < 1:
        raise InvalidArtifact(
            f"invalid_artifact: manifest of {manifest.model_id} has {COVERAGE} {coverage!r}"
            " (above 0, below 1). Not used. Build the index again."
        )
    return coverage


class CellIndex:
    """An inner-product index whose ids are the rows of its item table, which are in cell order."""

    def __init__(self, index: Any, moments: CellMoments, coverage: float, path: Path) -> None:
        """An index that was mapped from `path`.

        Args:
            index: a faiss.IndexIVFScalarQuantizer.
            coverage: expected share of the best rows that a search finds.

        Raises: InvalidArtifact: of other codes, or its rows are not in the order of its cells.
        """
        if not index.by_residual or index.sq.qtype != faiss.ScalarQuantizer.QT_8bit:
            raise invalid_index(path, "has cells of other codes than QT_8bit off a cell's mean")
        self._index = index
        self._moments, self._coverage = moments, coverage
        lists, cells, width = index.invlists, int(index.nlist), int(index.code_size)
        sizes = np.array([lists.list_size(cell) for cell in range(cells)], np.int64)
        self._sizes = sizes
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        # Addresses of the cells' codes; empty cells have none.
        self._full = np.flatnonzero(sizes)
        for cell in self._full.tolist():
            ids = faiss.rev_swig_ptr(lists.get_ids(cell), int(sizes[cell]))
            if ids[0] != self._bounds[cell] or ids[-1] != self._bounds[cell + 1] - 1:
                raise invalid_index(path, f"has rows out of order in cell {cell}")
        address = np.array([int(lists.get_codes(cell)) for cell in self._full.tolist()], np.int64)
        if (np.diff(address) <= 0).any():
            raise invalid_index(path, "has cells that are not in order in the file")
        span = int(address[-1] - address[0] + sizes[self._full[-1]] * width)
        first = lists.get_codes(int(self._full[0]))
        self._codes = sliding_window_view(faiss.rev_swig_ptr(first, span), width)
        # Where the code of row 0 would be if its cell began there: + row * width is the row's.
        self._origin = address - address[0] - self._bounds[self._full] * width
        trained = faiss.vector_to_array(index.sq.trained)
        self._least, self._range = trained[:width], trained[width:]

    @property
    def size(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    def search(
        self, query: Floats, k: int, excluded: Rows, within: Subset | None = None
    ) -> tuple[Rows, Floats]:
        query = np.ascontiguousarray(query, np.float32)
        excluded = np.unique(excluded)
        if len(excluded) > _DROPPED_MAX:
            within = (whole(self.size) if within is None else within).without(excluded)
            excluded = excluded[:0]
        asked = min(k + len(excluded), self.size if within is None else within.count)
        if asked == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows, similarity = self._nearest(query, asked, within)
        if not len(excluded):
            return rows[:k], similarity[:k]
        place = np.minimum(np.searchsorted(excluded, rows), len(excluded) - 1)
        kept = np.flatnonzero(excluded[place] != rows)[:k]
        return rows[kept], similarity[kept]

    def _nearest(self, query: Floats, k: int, within: Subset | None) -> tuple[Rows, Floats]:
        if within is not None and within.count <= _SCANNED_PER_K * k:
            return best(within.rows, self._scores(query, within.rows), k)
        counts = self._sizes if within is None else within.counts(self._bounds)
        cells, centre = choose(self._moments, query, counts, self._sizes, k, self._coverage)
        if within is None:
            return self._probe(query, k, cells, centre, None)
        if counts[cells].sum() * _SCAN_COST < self._sizes[cells].sum():
            rows = within.rows_in(self._bounds[cells], self._bounds[cells + 1])
            return best(rows, self._scores(query, rows), k)
        return self._probe(query, k, cells, centre, within.words)

    def _probe(
        self,
        query: Floats,
        k: int,
        cells: Rows,
        centre: Floats,
        words: npt.NDArray[np.uint64] | None,
    ) -> tuple[Rows, Floats]:
        """The k best rows of these cells, which hold at least k, by the scores of their means."""
        similarity, rows = np.empty(k, np.float32), np.empty(k, np.int64)
        parameters = _faiss.SearchParametersIVF(nprobe=len(cells))
        if words is not None:
            # The parameters hold no reference to the selector, nor that one to the bits: these
            # names keep both alive until the search is over.
            bits = words.view(np.uint8)
            selector = _faiss.IDSelectorBitmap(bits)
            parameters.sel = selector
        # Python's wrapper of this call takes no parameters, C++ does.
        self._index.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            k,
            faiss.swig_ptr(cells),
            faiss.swig_ptr(centre),
            faiss.swig_ptr(similarity),
            faiss.swig_ptr(rows),
            False,
            parameters,
        )
        return rows, similarity

    def _scores(self, query: Floats, rows: Rows) -> Floats:
        """Inner products of the query with the decoded vectors of rows."""
        width = self._codes.shape[1]
        cell = np.searchsorted(self._bounds[self._full], rows, side="right") - 1
        place = self._origin[cell] + rows * width
        # A component is least + range * (code + 1/2) / 255.
        weight = (self._range * query / np.float32(255)).astype(np.float32)
        base = float(self._least @ query) + 0.5 * float(weight.sum())
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _SCANNED_AT_ONCE):
            part = slice(start, start + _SCANNED_AT_ONCE)
            np.dot(self._codes[place[part]].astype(np.float32), weight, out=scores[part])
        # Rows of a cell are neighbours: its mean is scored once for them.
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        centre = self._moments.cell_mean[self._full[cell[first]]] @ query
        scores += np.repeat(centre, np.diff(first, append=len(cell)))
        return scores + np.float32(base)


def best(rows: Rows, scores: Floats, k: int) -> tuple[Rows, Floats]:
    """The k rows of largest score, best first, both arguments of shape (n,), n >= k."""
    if k < len(rows):
        top = np.argpartition(-scores, k)[:k]
        rows, scores = rows[top], scores[top]
    order = np.argsort(-scores, kind="stable")
    return rows[order], scores[order]
