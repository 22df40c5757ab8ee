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
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankstream.adapters.cell_choice import moments_of, write_moments
from rankstream.adapters.cell_index import CellIndex, best
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
_CELLS_MAX: Final = 8_192
_CELLS_PER_ROOT: Final = 4.0  # cells are about so many times the root of the number of items
_SAMPLE_PER_CELL: Final = 48
_ITERATIONS: Final = 8
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


def cells_of(items: int) -> int:
    """How many cells an index of so many items has: a power of two near 4 roots of them.

    >>> [cells_of(items) for items in (30_000, 1_000_000, 10_000_000)]
    [512, 4096, 8192]
    """
    return min(_CELLS_MAX, 1 << round(math.log2(_CELLS_PER_ROOT * math.sqrt(items))))


def _write_cells(vectors: Floats, folder: Path, *, seed: int) -> tuple[Rows, Floats]:
    """Write an index of cells; the order of its rows, which is by cell, and the vectors in it."""
    m, dimensions = vectors.shape
    cells = cells_of(m)
    index: Any = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimensions),
        dimensions,
        cells,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        # Codes of the vectors themselves, not of what they are off their cell's centre: as exact
        # on unit vectors, faster to search, and a row is scored without knowing its cell.
        False,
    )
    index.cp.niter, index.cp.seed = _ITERATIONS, seed
    index.cp.max_points_per_centroid = _SAMPLE_PER_CELL
    sample = np.random.default_rng(seed).permutation(m)[: cells * _SAMPLE_PER_CELL]
    index.train(np.ascontiguousarray(vectors[sample]))
    # The range of codes is that of all vectors: outside the sample's, they would be cut.
    least, most = vectors.min(axis=0), vectors.max(axis=0)
    trained = np.concatenate([least, most - least]).astype(np.float32)
    faiss.copy_array_to_vector(trained, index.sq.trained)
    cell = np.empty(m, np.int64)
    for start in range(0, m, _BLOCK):
        part = np.ascontiguousarray(vectors[start : start + _BLOCK])
        cell[start : start + _BLOCK] = index.quantizer.search(part, 1)[1][:, 0]
    order = np.argsort(cell, kind="stable")
    cell, ordered = cell[order], np.ascontiguousarray(vectors[order])
    for start in range(0, m, _BLOCK):
        part, of = ordered[start : start + _BLOCK], cell[start : start + _BLOCK]
        index.add_core(len(part), faiss.swig_ptr(part), None, faiss.swig_ptr(of))
    faiss.write_index(index, str(folder / NAME))
    bounds = np.searchsorted(cell, np.arange(cells + 1))
    write_moments(folder, moments_of(ordered, bounds))
    return order, ordered


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
