"""The index of an artefact: its kind by the number of items, its parameters by measured recall.

Few items are searched exactly; more are put into cells of 8-bit codes, of which a search reads
some (`rankstream.adapters.cell_choice`). A recall goes in, how much is read comes out: measured on
queries that are given, against exact search, with and without subsets of the items.

Source: Jégou, Douze and Schmid, "Product Quantization for Nearest Neighbor Search", PAMI 2011
(inverted cells).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankstream.adapters.cell_choice import moments_of, write_moments
from rankstream.adapters.cell_codes import best
from rankstream.adapters.cell_index import CellIndex
from rankstream.adapters.faiss_index import FaissIndex, load_index
from rankstream.adapters.index_file import NAME
from rankstream.contracts.subset import Subset, packed
from rankstream.retrieval import Found

# Up to so many items exact search costs no more: 0.22 ms of a core at 20,000 items of 64
# dimensions, as cells do, and 0.47 against 0.2 at 50,000; and it forgets nothing.
EXACT_MAX: Final = 20_000
RECALL_TARGET: Final = 0.96
DEPTH: Final = 500  # k of the recall
QUERIES_MAX: Final = 200
_GROUPS_MAX: Final = 4_096
_GROUPS_PER_ROOT: Final = 4.0  # groups are about so many times the root of the number of items
_ITEMS_PER_CELL: Final = 200
_SAMPLE_PER_GROUP: Final = 48
_ITERATIONS: Final = 8
# Codes reach from one of these quantiles of so many rows to the other: few components are cut, and
# the others finer.
_CUT: Final = 1e-4
_RANGED_MAX: Final = 500_000
# Above so many items exact search costs more than a core can spend on a request.
_EXACT_INSTEAD_MAX: Final = 200_000
_GAIN_MIN: Final = 0.002  # of recall, over two steps of coverage
_BLOCK: Final = 262_144  # rows that are put into cells at once
_SHARES: Final = (0.5, 0.1, 0.03)  # of subsets for which recall is measured
# What is tried, the least that suffices is taken: expected to be found, were scores normal.
_COVERAGES: Final = (0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.998, 0.999)

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
_NONE: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class BuiltIndex:
    """An index that was written: which rows it took in which order, and what it is worth.

    order: row of the vectors that each row of the index is, shape (m,).
    coverage: of the cells that are searched; None if it is exact.
    recall: at DEPTH, of the queries, measured; the least of those with and without subsets.
    """

    order: Rows
    coverage: float | None
    recall: float


def build_index(
    vectors: Floats,
    queries: Floats,
    folder: Path,
    *,
    seed: int,
    exact_max: int = EXACT_MAX,
    recall_target: float = RECALL_TARGET,
) -> BuiltIndex:
    """Write the index of vectors into a folder, where `load_index` finds it.

    Args:
        vectors: shape (m, dim).
        queries: shape (n, dim), as the towers make them for histories that the index was not
            chosen on; the first QUERIES_MAX are used. Without any the index is exact.
        exact_max: at most so many items are searched exactly.
        recall_target: of the DEPTH nearest. Where cells do not reach it, the index is exact, or, of
            more items than can be searched so, the best that cells reach.
    """
    if len(vectors) > exact_max and len(queries):
        order, ordered = _write_cells(vectors, folder, seed=seed)
        found = _tuned(ordered, queries[:QUERIES_MAX], folder, recall_target, seed=seed)
        if found[1] >= recall_target or len(vectors) > _EXACT_INSTEAD_MAX:
            return BuiltIndex(order, *found)
    FaissIndex.build(vectors).save(folder / NAME)
    return BuiltIndex(np.arange(len(vectors)), None, 1.0)


def cells_of(items: int) -> tuple[int, int]:
    """How many groups of cells an index of so many items has, and cells in each: powers of two.

    There are about 4 roots of the items; where cells would be large, they are parts of groups.

    >>> [cells_of(items) for items in (30_000, 1_000_000, 10_000_000)]
    [(512, 1), (4096, 1), (4096, 16)]
    """
    groups = min(_GROUPS_MAX, 1 << round(math.log2(_GROUPS_PER_ROOT * math.sqrt(items))))
    return groups, 1 << max(0, round(math.log2(items / groups / _ITEMS_PER_CELL)))


def _write_cells(vectors: Floats, folder: Path, *, seed: int) -> tuple[Rows, Floats]:
    """Write an index of cells; the order of its rows, which is by cell, and the vectors in it."""
    m, dimensions = vectors.shape
    groups, parts = cells_of(m)
    group = _grouped(vectors, groups, seed=seed)
    order = np.argsort(group, kind="stable")
    cell, ordered = group[order], np.ascontiguousarray(vectors[order])
    if parts > 1:
        cell = _divided(ordered, cell, groups, parts, seed=seed)
        inner = np.argsort(cell, kind="stable")
        order, cell, ordered = order[inner], cell[inner], ordered[inner]
    bounds = np.searchsorted(cell, np.arange(groups * parts + 1))
    moments = moments_of(ordered, bounds, parts)
    write_moments(folder, moments)
    index: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimensions),  # stays empty: `cell_choice` is in its place
        dimensions,
        groups * parts,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        False,  # what is added is off its cell's mean already
    )
    sample = np.sort(np.random.default_rng(seed).permutation(m)[:_RANGED_MAX])
    inside = ordered[sample] - moments.cell_mean[cell[sample]]
    least, most = np.quantile(inside, [_CUT, 1 - _CUT], axis=0)
    trained = np.concatenate([least, most - least]).astype(np.float32)
    faiss.copy_array_to_vector(trained, index.sq.trained)
    index.is_trained = True
    for start in range(0, m, _BLOCK):
        of = cell[start : start + _BLOCK]
        part = ordered[start : start + _BLOCK] - moments.cell_mean[of]
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(of))
    index.by_residual = True  # the score of its cell's mean is added to a row's
    faiss.write_index(index, str(folder / NAME))
    return order, ordered


def _grouped(vectors: Floats, groups: int, *, seed: int) -> Rows:
    """The group of each row, shape (m,), by k-means of a sample."""
    means = _means(groups, vectors.shape[1], _SAMPLE_PER_GROUP, seed=seed)
    sample = np.random.default_rng(seed).permutation(len(vectors))[: groups * _SAMPLE_PER_GROUP]
    means.train(np.ascontiguousarray(vectors[sample]))
    group = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BLOCK):
        part = np.ascontiguousarray(vectors[start : start + _BLOCK])
        group[start : start + _BLOCK] = means.index.search(part, 1)[1][:, 0]
    return group


def _divided(vectors: Floats, group: Rows, groups: int, parts: int, *, seed: int) -> Rows:
    """The cell of each row, shape (m,): part p of group g is cell g * parts + p.

    Args: vectors in the order of their groups, shape (m, dim); group: of each, shape (m,).
    """
    cell = group * parts
    bounds = np.searchsorted(group, np.arange(groups + 1)).tolist()
    for start, end in pairwise(bounds):
        rows = vectors[start:end]
        if len(rows) > parts:
            means = _means(parts, vectors.shape[1], len(rows), seed=seed)
            means.train(rows)
            cell[start:end] += means.index.search(rows, 1)[1][:, 0]
    return cell


def _means(k: int, dimensions: int, sample_per_mean: int, *, seed: int) -> Any:
    return faiss.Kmeans(
        dimensions,
        k,
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=sample_per_mean,
    )


def _tuned(
    vectors: Floats, queries: Floats, folder: Path, target: float, *, seed: int
) -> tuple[float, float]:
    """The least coverage that reaches the target, or nearly the best one, and the recall."""
    m = len(vectors)
    depth = min(DEPTH, m)
    flags = np.random.default_rng(seed).random(m)
    subsets = [None, *(Subset(m, words=packed(flags < share)) for share in _SHARES)]
    truth = [nearest(vectors, queries, depth, within) for within in subsets]
    tried: list[tuple[float, float]] = []
    for coverage in _COVERAGES:
        index = load_index(folder, size=m, coverage=coverage)
        tried.append((coverage, min(map(partial(recall, index, queries), truth, subsets))))
        # What 8 bits cannot tell apart, no further cell finds.
        if tried[-1][1] >= target or (len(tried) > 2 and tried[-1][1] < tried[-3][1] + _GAIN_MIN):
            break
    most = max(found for _, found in tried)
    return next(one for one in tried if one[1] >= min(target, most - _GAIN_MIN))


def nearest(vectors: Floats, queries: Floats, k: int, within: Subset | None) -> list[Rows]:
    """The rows of the k largest inner products with each query: `exact` of many at once."""
    found = [Found(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        if within is not None:
            rows = rows[within.holds(rows)]
        scores = queries @ vectors[rows].T  # a query's lie together
        for place, before in enumerate(found):
            # Once there are k, few rows are better than the last of them.
            least = before.similarity[-1] if len(before.rows) == k else -np.inf
            better = np.flatnonzero(scores[place] >= least)
            found[place] = Found(
                *best(
                    np.concatenate([before.rows, rows[better]]),
                    np.concatenate([before.similarity, scores[place, better]]),
                    k,
                )
            )
    return [one.rows for one in found]


def recall(
    index: FaissIndex | CellIndex, queries: Floats, truth: list[Rows], within: Subset | None
) -> float:
    """The mean share of what exact search finds that an index finds too, asked for as many."""
    shares = [
        len(np.intersect1d(index.search(query, len(rows), _NONE, within)[0], rows)) / len(rows)
        for query, rows in zip(queries, truth, strict=True)
    ]
    return float(np.mean(shares))
