"""Which cells of an index to search, from what is known of the scores in each.

The inner products of a query with a cell's vectors are taken as normal, with the mean and variance
that the cell's own mean and variances by dimension give. So the number of rows above any score is
known in expectation, with the threshold at which k remain, and where those k are. Cells are taken
by the share of their rows that is expected among the k, until a given coverage of the k is reached.
Because only rows that may come back are counted, this holds for a subset as for the whole table,
near the query or far from it; a query between many cells gets more of them than one amid a few.
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

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# Only so many cells are weighed, those of the best rows one may hope for, or as many as hold
# _HELD times k rows.
_WEIGHED_MIN: Final = 1_024
_HELD: Final = 8
_HOPED: Final = 2.0  # standard deviations above a cell's mean
_STEPS: Final = 10  # thresholds that are tried at once, twice
_Z_MAX: Final = 8.0
_SPREAD_MIN: Final = 1e-6


@dataclass(frozen=True, eq=False)
class CellMoments:
    """Mean and variance of the vectors of each cell by dimension, float32, shape (cells, dim)."""

    mean: Floats
    variance: Floats


def moments_of(vectors: Floats, bounds: Ints) -> CellMoments:
    """The moments of vectors in the order of their cells; zeros for an empty one.

    Args:
        vectors: shape (m, dim).
        bounds: shape (cells + 1,); cell c has the rows from bounds[c] to bounds[c + 1].
    """
    shape = (len(bounds) - 1, vectors.shape[1])
    mean, variance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for cell, (start, end) in enumerate(pairwise(bounds.tolist())):
        if start < end:
            mean[cell] = vectors[start:end].mean(axis=0)
            variance[cell] = vectors[start:end].var(axis=0)
    return CellMoments(mean, variance)


def write_moments(folder: Path, moments: CellMoments) -> None:
    """Write the moments where `read_moments` finds them."""
    np.savez(folder / NAME, mean=moments.mean, variance=moments.variance)


def read_moments(folder: Path, *, cells: int, dimensions: int) -> CellMoments:
    """The moments of an artefact folder.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of another index.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            moments = CellMoments(
                columns["mean"].astype(np.float32), columns["variance"].astype(np.float32)
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of cells: {error}") from None
    shapes = (moments.mean.shape, moments.variance.shape)
    if shapes != ((cells, dimensions),) * 2 or not (moments.variance >= 0).all():
        raise _invalid(path, f"has shapes {shapes} or a variance below 0, its index {cells} cells")
    return moments


def choose(
    moments: CellMoments, query: Floats, counts: Ints, sizes: Ints, k: int, coverage: float
) -> Ints:
    """The cells to search for the k best rows, most promising first; together they hold k.

    Args:
        query: shape (dim,).
        counts: rows of each cell that may come back, shape (cells,), k in all at least.
        sizes: rows of each cell, shape (cells,): what it costs to search.
        coverage: expected share of the k, below 1.
    """
    centre = moments.mean @ query
    spread = np.sqrt(moments.variance @ (query * query)) + np.float32(_SPREAD_MIN)
    weighed = max(_WEIGHED_MIN, _HELD * k * len(counts) // max(1, int(counts.sum())))
    hoped = centre + np.float32(_HOPED) * spread
    hoped[counts == 0] = -np.inf
    if weighed < len(counts):
        cells = np.argpartition(-hoped, weighed)[:weighed]
        cells = cells[counts[cells] > 0]
    if weighed >= len(counts) or counts[cells].sum() < k:
        cells = np.flatnonzero(counts)
    inside = counts[cells].astype(np.float32)
    centre, steep = centre[cells], np.reciprocal(spread[cells])
    expected = _above(_threshold(centre, steep, inside, k), centre, steep) * inside
    order = np.argsort(-expected / sizes[cells])
    reached = np.cumsum(expected[order])
    covered = int(np.searchsorted(reached, coverage * reached[-1])) + 1
    holding = int(np.searchsorted(np.cumsum(inside[order]), k)) + 1
    chosen: Ints = cells[order[: max(covered, holding)]]
    return chosen


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
