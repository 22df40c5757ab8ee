"""Which cells of an index to search, from what is known of the scores in each.

The inner products of a query with a cell's vectors are taken as normal, with the mean and variance
that the cell's own mean and variances by dimension give. So the number of rows above any score is
known in expectation, with the threshold at which k remain, and where those k are. Cells are taken
by the share of their rows that is expected among the k, until a given coverage of the k is reached.
Because only rows that may come back are counted, this holds for a subset as for the whole table,
near the query or far from it; a query between many cells gets more of them than one amid a few.

Millions of rows take more cells than can be weighed for each query. They are then in groups, which
are weighed first, and of those that are expected to hold nearly all of the k each cell.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "cells.npz"
_PART: Final = "part_"  # of the names of columns of parts

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_GROUPS_COVERAGE: Final = 0.995  # expected share of the k in the groups whose cells are weighed
_EXPECTED_MIN: Final = 1e-4  # rows; cells with fewer come only if the others do not hold k
_HALVINGS: Final = 12  # of what all scores span
_Z_MAX: Final = 8.0
_SPREAD_MIN: Final = 1e-6


_REALS: Final[Any] = numba.types.float32[::1]
_LONGS: Final[Any] = numba.types.int64[::1]


@dataclass(frozen=True, eq=False)
class Parts:
    """Mean and variance of the vectors of each cell, float32, shapes (cells, dim) and (cells,).

    The variance is of all dimensions together; `share`, float32, shape (dim,), says which part of
    it each dimension has, the same in all cells.
    """

    mean: Floats
    variance: Floats
    share: Floats


@dataclass(frozen=True, eq=False)
class CellMoments:
    """Mean and variance of the vectors of each group by dimension, float32, shape (groups, dim).

    `parts`: of the cells, as many of each group; None: every group is a cell.
    """

    mean: Floats
    variance: Floats
    parts: Parts | None = None

    @property
    def cell_mean(self) -> Floats:
        """The mean of each cell, shape (cells, dim)."""
        return self.mean if self.parts is None else self.parts.mean


def moments_of(vectors: Floats, bounds: Ints, parts: int = 1) -> CellMoments:
    """The moments of vectors in the order of their cells; zeros where there are no vectors.

    Args:
        vectors: shape (m, dim).
        bounds: shape (cells + 1,); cell c has the rows from bounds[c] to bounds[c + 1].
        parts: cells of each group, which are neighbours.
    """
    if parts == 1:
        return CellMoments(*_moments(vectors, bounds))
    mean, variance = _moments(vectors, bounds)
    inside = variance.sum(axis=1)
    total = np.diff(bounds).astype(np.float32) @ variance
    share = total / max(float(total.sum()), _SPREAD_MIN)
    return CellMoments(*_moments(vectors, bounds[::parts]), Parts(mean, inside, share))


def _moments(vectors: Floats, bounds: Ints) -> tuple[Floats, Floats]:
    shape = (len(bounds) - 1, vectors.shape[1])
    mean, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for cell, (start, end) in enumerate(pairwise(bounds.tolist())):
        if start < end:
            mean[cell] = vectors[start:end].mean(axis=0)
            variance[cell] = vectors[start:end].var(axis=0)
    return mean, variance


def write_moments(folder: Path, moments: CellMoments) -> None:
    """Write the moments where `read_moments` finds them."""
    parts = {} if moments.parts is None else vars(moments.parts)
    named = {f"{_PART}{name}": column for name, column in parts.items()}
    np.savez(folder / NAME, mean=moments.mean, variance=moments.variance, **named)


def read_moments(folder: Path, *, cells: int, dimensions: int) -> CellMoments:
    """The moments of an artefact folder.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of another index.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            read = {name: columns[name].astype(np.float32) for name in columns.files}
        of_parts = {name: read.pop(name) for name in [*read] if name.startswith(_PART)}
        named = {name.removeprefix(_PART): column for name, column in of_parts.items()}
        parts = Parts(**named) if named else None
        moments = CellMoments(**read, parts=parts)
    except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of cells: {error}") from None
    if not _fits(moments, cells, dimensions):
        shapes = [column.shape for column in (*read.values(), *of_parts.values())]
        raise _invalid(path, f"has shapes {shapes} or a variance below 0, its index {cells} cells")
    return moments


def _fits(moments: CellMoments, cells: int, dimensions: int) -> bool:
    """Whether the moments are of an index of so many cells."""
    groups, parts = len(moments.mean), moments.parts
    if not moments.mean.shape == moments.variance.shape == (groups, dimensions):
        return False
    if not bool((moments.variance >= 0).all()):
        return False
    if parts is None:
        return groups == cells
    shapes = (parts.mean.shape, parts.variance.shape, parts.share.shape)
    return (
        shapes == ((cells, dimensions), (cells,), (dimensions,))
        and groups > 0
        and cells % groups == 0
        and bool((parts.variance >= 0).all() and (parts.share >= 0).all())
    )


def choose(
    moments: CellMoments, query: Floats, counts: Ints, sizes: Ints, k: int, coverage: float
) -> tuple[Ints, Floats]:
    """The cells to search for the k best rows, most promising first; together they hold k.

    Also the scores of their means, as float32.

    Args:
        query: shape (dim,).
        counts: rows of each cell that may come back, shape (cells,), k in all at least.
        sizes: rows of each cell, shape (cells,): what it costs to search.
        coverage: expected share of the k, below 1.
    """
    parts = moments.parts
    square = query * query
    if parts is None:
        centre = moments.mean @ query
        expected = expected_among(centre, moments.variance @ square, counts, k)
        taken = _taken(expected, sizes, counts, k, coverage)
        return taken, centre[taken]
    per_group = len(counts) // len(moments.mean)
    of_group = np.add.reduceat(counts, np.arange(0, len(counts), per_group))
    expected = expected_among(moments.mean @ query, moments.variance @ square, of_group, k)
    groups = _taken(expected, np.ones_like(of_group), of_group, k, _GROUPS_COVERAGE)
    cells = (groups[:, None] * per_group + np.arange(per_group)).ravel()
    centre = _centres(parts.mean, query, cells)
    inside = counts[cells]
    expected = expected_among(centre, parts.variance[cells] * (parts.share @ square), inside, k)
    taken = _taken(expected, sizes[cells], inside, k, coverage)
    return cells[taken], centre[taken]


@numba.njit(
    [_REALS(numba.types.float32[:, ::1], _REALS, _LONGS)],
    nogil=True,
    cache=True,
    fastmath={"reassoc", "contract", "nsz"},
)
def _centres(mean: Any, query: Any, cells: Any) -> Any:
    """The score of the mean of each cell, without a copy of the means."""
    scores = np.empty(len(cells), np.float32)
    for c in range(len(cells)):
        score = np.float32(0.0)
        for d in range(len(query)):
            score += mean[cells[c], d] * query[d]
        scores[c] = score
    return scores


def _taken(expected: Floats, cost: Ints, inside: Ints, k: int, coverage: float) -> Ints:
    """Places of those with the most expected for their cost: until it covers, and they hold k."""
    likely = np.flatnonzero(expected > _EXPECTED_MIN)
    if inside[likely].sum() < k:
        likely = np.flatnonzero(inside)
    order = likely[np.argsort(-expected[likely] / cost[likely])]
    reached = np.cumsum(expected[order])
    covered = int(np.searchsorted(reached, coverage * reached[-1])) + 1
    holding = int(np.searchsorted(np.cumsum(inside[order]), k)) + 1
    taken: Ints = order[: max(covered, holding)]
    return taken


@numba.njit(inline="always")
def _above(z: Any) -> Any:
    """P(x > -z) of a normal x.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.28: within 2e-7.
    """
    x = min(abs(z) * np.float32(0.70710678), np.float32(_Z_MAX))
    p = np.float32(0.0000430638)
    p = p * x + np.float32(0.0002765672)
    p = p * x + np.float32(0.0001520143)
    p = p * x + np.float32(0.0092705272)
    p = p * x + np.float32(0.0422820123)
    p = p * x + np.float32(0.0705230784)
    p = p * x + np.float32(1.0)
    p = p * p
    p = p * p
    p = p * p
    p = p * p
    tail = np.float32(0.5) / p
    return tail if z < 0 else np.float32(1.0) - tail


# Sums in any order and no check of each division: so the loops take 16 cells at a time.
@numba.njit(
    [_REALS(_REALS, _REALS, _LONGS, numba.types.int64)],
    nogil=True,
    cache=True,
    fastmath={"reassoc", "contract", "nsz"},
    error_model="numpy",
)
def expected_among(centre: Any, variance: Any, inside: Any, k: Any) -> Any:
    """How many of the k best rows to expect in each cell, of `inside` rows.

    Scores in a cell have mean `centre` and `variance`. The score that k rows are expected above is
    found by halving.
    """
    cells = len(centre)
    steep, rows = np.empty(cells, np.float32), np.empty(cells, np.float32)
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for c in range(cells):
        spread = np.sqrt(variance[c]) + np.float32(_SPREAD_MIN)
        steep[c] = np.float32(1.0) / spread
        rows[c] = inside[c]
        low = min(low, centre[c] - np.float32(3.0) * spread)
        high = max(high, centre[c] + np.float32(3.0) * spread)
    for _ in range(_HALVINGS):
        threshold = np.float32(0.5) * (low + high)
        above = np.float32(0.0)
        for c in range(cells):
            above += rows[c] * _above((centre[c] - threshold) * steep[c])
        if above > k:
            low = threshold
        else:
            high = threshold
    threshold = np.float32(0.5) * (low + high)
    for c in range(cells):
        rows[c] *= _above((centre[c] - threshold) * steep[c])
    return rows


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
