"""The Index port on FAISS: exact search, for tables that are small enough for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankstream.adapters.cell_choice import read_moments
from rankstream.adapters.cell_codes import best
from rankstream.adapters.cell_index import CellIndex
from rankstream.adapters.index_file import NAME, invalid_index, part_of_cells, read_index
from rankstream.contracts.subset import Rows, Subset, whole

Floats = npt.NDArray[np.float32]

# Rows of a subset are scored one by one if they are a smaller share than this of the table.
_SCANNED_SHARE: Final = 1 / 8

# The types that the wheel ships describe the C++ classes, not the Python ones that wrap them.
_faiss: Any = faiss


class FaissIndex:
    """An exact inner-product index whose ids are the rows of its item table.

    A row's similarity has the same bits whatever other rows there are, so shards of a table score
    as one process does: rows are always searched through a selector or by their numbers, and never
    as one matrix, whose product sums in an order that depends on where a row lies.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        # A view: it lives as long as the index does.
        codes = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._vectors: Floats = codes.reshape(index.ntotal, index.d)
        self._whole = whole(index.ntotal)

    @classmethod
    def build(cls, vectors: Floats) -> FaissIndex:
        """An index of vectors, shape (m, dim)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    def part(self, rows: Rows) -> FaissIndex:
        """An index of some of its rows, which are copied."""
        return FaissIndex.build(self._vectors[rows])

    def save(self, path: Path) -> None:
        """Write the index where `load_index` finds it."""
        faiss.write_index(self._index, str(path))

    @property
    def size(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    def search(
        self, query: Floats, k: int, excluded: Rows, within: Subset | None = None
    ) -> tuple[Rows, Floats]:
        within = self._whole if within is None else within
        if len(excluded):
            within = within.without(excluded)
        k = min(k, within.count)
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        query = np.ascontiguousarray(query, np.float32)
        if within.count < self.size * _SCANNED_SHARE:
            return best(within.rows, self._scores(query, within.rows), k)
        # The index holds no reference to the selector, nor the selector to the bits: these names
        # keep both alive until the search is over.
        bits = within.words.view(np.uint8)
        selector = _faiss.IDSelectorBitmap(bits)
        parameters = _faiss.SearchParameters(sel=selector)
        similarity, rows = self._index.search(query[None], k, params=parameters)
        return rows[0], similarity[0]

    def _scores(self, query: Floats, rows: Rows) -> Floats:
        """Inner products of the query with rows."""
        scores, rows = np.empty(len(rows), np.float32), np.ascontiguousarray(rows)
        _faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(query),
            faiss.swig_ptr(self._vectors),
            faiss.swig_ptr(rows),
            self.dimensions,
            1,
            len(rows),
        )
        return scores


def load_index(
    folder: Path, *, size: int, coverage: float | None, part: Rows | None = None
) -> FaissIndex | CellIndex:
    """The index of an artefact folder, of either kind.

    Args:
        size: rows of its item table.
        coverage: of an index of cells, from its manifest.
        part: rows that are kept, ascending, one at least, which are then rows 0, 1, ...; None: all.

    Raises: InvalidArtifact: not an index of these kinds, not of `size` rows, or without coverage.
    """
    index, path = read_index(folder, size=size), folder / NAME
    if isinstance(index, faiss.IndexFlat):
        whole_index = FaissIndex(index)
        return whole_index if part is None else whole_index.part(part)
    if not isinstance(index, faiss.IndexIVFScalarQuantizer):
        raise invalid_index(path, f"is a {type(index).__name__}")
    if coverage is None:
        raise invalid_index(path, "has cells, and its manifest no index_coverage")
    moments = read_moments(folder, cells=index.nlist, dimensions=index.d)
    cells = CellIndex(index, moments, coverage, path)
    if part is None:
        return cells
    return CellIndex(part_of_cells(index, part), moments, coverage, path)
