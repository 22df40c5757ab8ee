"""The Index port on FAISS: inverted cells of 8-bit codes, for tables too large for exact search.

The rows of the table are in the order of the cells, so a cell is a range of rows: no map leads from
a row to its code, and one pass over the bits of a subset says how many of its rows are in each
cell. `cell_choice` says which cells are searched for it, `cell_codes` searches them; the rows of a
small subset are scored without a look at cells. FAISS has made cells and codes and maps the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.adapters.cell_choice import CellMoments, choose
from rankstream.adapters.cell_codes import CellCodes, best
from rankstream.contracts.manifest import Manifest
from rankstream.contracts.subset import Rows, Subset, whole
from rankstream.errors import InvalidArtifact

Floats = npt.NDArray[np.float32]

COVERAGE: Final = "index_coverage"

# So many rows that must not come back are asked for too much and dropped; of more, bits are made.
# Measured at 1 M rows, CPU ms per query, dropped or by bits: 50 rows .45 or .52, 1,000 .90 or .98,
# 3,000 2.3 or .88.
_DROPPED_MAX: Final = 1_000
_SCANNED_PER_K: Final = 4  # a subset of so many times k rows is scored without a look at cells


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
        self._codes = CellCodes(index, path)
        self._moments, self._coverage = moments, coverage

    @property
    def size(self) -> int:
        return int(self._codes.bounds[-1])

    @property
    def dimensions(self) -> int:
        return self._codes.dimensions

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
            scores = self._codes.scores(query, within.rows, self._moments.cell_mean)
            return best(within.rows, scores, k)
        sizes, bounds = self._codes.sizes, self._codes.bounds
        counts = sizes if within is None else within.counts(bounds)
        cells, centre = choose(self._moments, query, counts, sizes, k, self._coverage)
        words = None if within is None else within.words
        return self._codes.nearest(query, k, cells, centre, words)
