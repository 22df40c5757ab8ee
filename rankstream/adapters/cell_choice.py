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
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "cells.npz"
_PART: Final = "part_"  # of the names of columns of parts

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Only so many cells are weighed, those of the best rows one may hope for, or as many as hold
# _HELD times k rows.
_WEIGHED_MIN: Final = 1_024
_HELD: Final = 8
_HOPED: Final = 2.0  # standard deviations above a cell's mean
_GROUPS_COVERAGE: Final = 0.995  # expected share of the k in the groups whose cells are weighed
_STEPS: Final = 10  # thresholds that are tried at once, twice
_Z_MAX: Final = 8.0
_SPREAD_MIN: Final = 1e-6


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
    per_group = len(counts) // len(moments.mean)
    of_group = np.add.reduceat(counts, np.arange(0, len(counts), per_group))
    groups, centre, spread = _hopeful(moments, query, of_group, k)
    inside = of_group[groups].astype(np.float32)
    expected = _expected(centre, spread, inside, k)
    if parts is None:
        taken = _taken(expected, sizes[groups], inside, k, coverage)
        return groups[taken], centre[taken]
    groups = groups[_taken(expected, 1.0, inside, k, _GROUPS_COVERAGE)]
    cells = (groups[:, None] * per_group + np.arange(per_group)).ravel()
    cells = cells[counts[cells] > 0]
    centre = parts.mean[cells] @ query
    spread = np.sqrt(parts.variance[cells] * (parts.share @ (query * query)))
    inside = counts[cells].astype(np.float32)
    expected = _expected(centre, spread, inside, k)
    taken = _taken(expected, sizes[cells], inside, k, coverage)
    return cells[taken], centre[taken]


def _hopeful(
    moments: CellMoments, query: Floats, counts: Ints, k: int
) -> tuple[Ints, Floats, Floats]:
    """The groups that are weighed, and mean and standard deviation of the scores in each."""
    centre = moments.mean @ query
    spread = np.sqrt(moments.variance @ (query * query))
    weighed = max(_WEIGHED_MIN, _HELD * k * len(counts) // max(1, int(counts.sum())))
    hoped = centre + np.float32(_HOPED) * spread
    hoped[counts == 0] = -np.inf
    if weighed < len(counts):
        groups = np.argpartition(-hoped, weighed)[:weighed]
        groups = groups[counts[groups] > 0]
    if weighed >= len(counts) or counts[groups].sum() < k:
        groups = np.flatnonzero(counts)
    return groups, centre[groups], spread[groups]


def _expected(centre: Floats, spread: Floats, inside: Floats, k: int) -> Floats:
    """How many of the k best rows to expect in each cell or group, of `inside` rows."""
    steep = np.reciprocal(spread + np.float32(_SPREAD_MIN))
    share = _above(_threshold(centre, steep, inside, k), centre, steep)
    return share * inside


def _taken(expected: Floats, cost: Ints | float, inside: Floats, k: int, coverage: float) -> Ints:
    """Places of those with the most expected for their cost: until it covers, and they hold k."""
    order = np.argsort(-expected / cost)
    reached = np.cumsum(expected[order])
    covered = int(np.searchsorted(reached, coverage * reached[-1])) + 1
    holding = int(np.searchsorted(np.cumsum(inside[order]), k)) + 1
    taken: Ints = order[: max(covered, holding)]
    return taken


def _threshold(centre: Floats, steep: Floats, inside: Floats, k: int) -> float:
    """The score that about k rows are expected above; `steep` is 1 / standard deviation."""
    low, high = float(centre.min() - 3 / steep.min()), float(centre.max() + 3 / steep.min())
    for _ in range(2):
        steps = np.linspace(low, high, _STEPS, dtype=np.float32)
        above = _above(steps[:, None], centre, steep) @ inside
        over = int(np.count_nonzero(above > k))
        low, high = float(steps[max(over - 1, 0)]), float(steps[min(over, _STEPS - 1)])
    return (low + high) / 2


def _above(threshold: float | Floats, centre: Floats, steep: Floats) -> Floats:
    """P(score > threshold) of normal scores.

    Source: Page, "Approximations to the Cumulative Normal Function and Its Inverse for Use on a
    Pocket Calculator", Applied Statistics 1977: within 2e-4.
    """
    z = (centre - np.float32(threshold)) * steep
    np.clip(z, -_Z_MAX, _Z_MAX, out=z)
    z *= np.float32(-1.5976) - np.float32(0.070566) * z * z
    np.exp(z, out=z)
    z += 1
    share: Floats = np.reciprocal(z, out=z)
    return share


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
