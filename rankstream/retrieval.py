"""Candidates: which rows of the item table go on to be scored.

A row is the number of an item in the table of one index; -1 pads a source that found too few.
`exact` is what an approximate index is measured against. Sources are merged by score (`blend`):
each source's scores, above the lowest that it gave, are a vector of length 1, and a candidate has
the weighted sum of them, 0 from a source that did not name it. A source may have a quota.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.contracts.neighbours import Neighbours, NeighboursPart
from rankstream.contracts.subset import Subset

# What a source is asked for at least: a score says more beside those of many others.
LIST_MIN: Final = 500

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_NONE: Final = np.empty(0, np.float32)


class Found(NamedTuple):
    """What one source found: rows, shape (k,), best first, and their similarity, shape (k,)."""

    rows: Rows
    similarity: Floats


class Listed(NamedTuple):
    """A source in a merge: what it found, its weight, 0 or more, and its bit in `named_by`.

    `least` of its best are in the answer, `most` of the answer are its; None: any number.
    """

    found: Found
    share: float
    bit: int
    least: int = 0
    most: int | None = None


class Blend(NamedTuple):
    """Merged candidates, best first: rows, score and the bits of the sources that named each.

    `rows` int64, `score` float32, `named_by` uint32, all of shape (n,).
    """

    rows: Rows
    score: Floats
    named_by: npt.NDArray[np.uint32]


def exact(
    vectors: Floats, query: Floats, k: int, excluded: Rows, within: Subset | None = None
) -> Found:
    """The k rows of largest inner product with the query; equal ones in the order of the table.

    Args:
        vectors: shape (m, dim).
        query: shape (dim,).
        excluded: rows that must not come back, any order, repeats allowed.
        within: rows that may come back; None: all.

    Returns: min(k, rows left) candidates.
    """
    similarity = (vectors @ query).astype(np.float32)
    allowed = np.ones(len(vectors), bool)
    allowed[excluded] = False
    rows = np.flatnonzero(allowed)
    if within is not None:
        rows = rows[within.holds(rows)]
    if k < len(rows):
        least = np.partition(similarity[rows], len(rows) - k)[len(rows) - k]
        rows = rows[similarity[rows] >= least]
    best = rows[largest(similarity[rows], k)]
    return Found(best.astype(np.int64), similarity[best])


def popular(ranked: Found, k: int, excluded: Rows, within: Subset | None = None) -> Found:
    """The first k rows of a ranking that is the same for all users.

    Args:
        ranked: shape (m,).
        excluded: rows that must not come back, any order.
        within: rows that may come back; None: all.
    """
    order, taken = ranked.rows, list[Rows]()
    count = start = 0
    depth = k + len(excluded)
    while count < k and start < len(order):
        places = np.arange(start, min(start + depth, len(order)))
        start, depth = start + depth, depth * 2
        if within is not None:
            places = places[within.holds(order[places])]
        if len(excluded):
            places = places[~np.isin(order[places], excluded)]
        taken.append(places)
        count += len(places)
    found = np.concatenate([np.empty(0, np.int64), *taken])[:k]
    return Found(order[found], ranked.similarity[found])


def similar(
    table: Neighbours | NeighboursPart,
    history: Rows,
    k: int,
    excluded: Rows,
    within: Subset | None = None,
) -> Found:
    """The k rows that the lists of a history's items name most strongly; equal ones by row.

    Args:
        history: whose lists, newest first, shape (h,); -1 is ignored, a repeat counts where it is
            newest.
        excluded: rows that must not come back, any order, repeats allowed.
        within: rows that may come back; None: all.

    Returns: candidates with their summed weights, above 0; fewer if the lists name fewer.
    """
    known = history[history >= 0]
    _, first = np.unique(known, return_index=True)
    last = known[np.sort(first)][: table.last]
    fading = np.float32(table.fading) ** np.arange(len(last), dtype=np.float32)
    named, weights = table.named(last, fading)
    rows, order, first = _grouped(named)
    weights = weights.astype(np.float64)
    total = np.add.reduceat(weights[order], first).astype(np.float32) if len(rows) else _NONE
    if len(rows):
        # `rows` ascend, so this costs by what is excluded, not by both.
        place_of = np.minimum(np.searchsorted(rows, excluded), len(rows) - 1)
        keep = np.ones(len(rows), bool)
        keep[place_of[rows[place_of] == excluded]] = False
        if within is not None:
            keep &= within.holds(rows)
        rows, total = rows[keep], total[keep]
    best = largest(total, k)
    return Found(rows[best], total[best])


def largest(values: Floats, k: int) -> npt.NDArray[np.intp]:
    """Places of the k largest values, falling; equal ones in order of their places.

    A stable sort of floats takes five times as long as one of integers that hold value and place.

    Args:
        values: shape (n,), no nan.

    >>> largest(np.array([1.0, 3.0, -0.0, 3.0, 0.0], np.float32), 4).tolist()
    [1, 3, 0, 2]
    """
    # A float's bits ascend as it does, those of negative ones when they are turned around.
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)
    falling = ~(bits ^ (bits >> 31 & 0x7FFFFFFF))
    keys = (falling.astype(np.int64) << 32) + np.arange(len(values))
    if k < len(keys):
        keys = np.partition(keys, k)[:k]
    keys.sort()
    places: npt.NDArray[np.intp] = keys & 0xFFFFFFFF
    return places


def _grouped(rows: npt.NDArray[np.integer]) -> tuple[Rows, Rows, Rows]:
    """Each row once, ascending; all places in that order, and where each row begins there."""
    keys = (rows.astype(np.int64) << 32) + np.arange(len(rows))
    keys.sort()
    ascending = keys >> 32
    first = np.flatnonzero(np.diff(ascending, prepend=-1))
    return ascending[first], keys & 0xFFFFFFFF, first


def blend(sources: Sequence[Listed], k: int) -> Blend:
    """The k rows of largest weighted sum over the sources, within their quotas; equal ones by row.

    Args:
        sources: each names a row once, best first; -1 is ignored. Together they claim k or less.

    >>> a = Found(np.array([3, 1, 5]), np.array([5, 4, 2], np.float32))
    >>> b = Found(np.array([7, 1, 2]), np.array([9, 9, 8], np.float32))
    >>> found = blend([Listed(a, 1.0, 1), Listed(b, 1.0, 2)], k=3)
    >>> found.rows.tolist(), found.named_by.tolist()
    ([1, 3, 7], [3, 1, 2])
    >>> blend([Listed(a, 1.0, 1), Listed(b, 0.1, 2, least=2)], k=3).rows.tolist()
    [1, 3, 7]
    """
    present = [source.found.rows >= 0 for source in sources]
    rows = [s.found.rows[p][: s.most] for s, p in zip(sources, present, strict=True)]
    # Scaled before it is cut: what a source may not name still says what its best are worth.
    scores = [
        s.share * _scaled(s.found.similarity[p])[: s.most]
        for s, p in zip(sources, present, strict=True)
    ]
    sizes = [len(named) for named in rows]
    bits = np.repeat(np.array([source.bit for source in sources], np.uint32), sizes)
    if not len(bits):
        return Blend(np.empty(0, np.int64), _NONE, bits)
    found, order, first = _grouped(np.concatenate(rows))
    total = np.add.reduceat(np.concatenate(scores)[order], first).astype(np.float32)
    named = np.bitwise_or.reduceat(bits[order], first)
    if any(source.least for source in sources):
        claims = [np.arange(n) < s.least for n, s in zip(sizes, sources, strict=True)]
        claimed = np.logical_or.reduceat(np.concatenate(claims)[order], first)
        kept, others = np.flatnonzero(claimed), np.flatnonzero(~claimed)
        others = others[largest(total[others], k - len(kept))]
        places = np.sort(np.concatenate([kept, others]))
        best = places[largest(total[places], k)]
    else:
        best = largest(total, k)
    return Blend(found[best], total[best], named[best])


def _scaled(similarity: Floats) -> npt.NDArray[np.float64]:
    if not len(similarity):
        return np.empty(0)
    above = similarity.astype(np.float64) - float(similarity.min())
    return above / max(float(np.linalg.norm(above)), 1e-12)


def blend_with_neighbours(
    near: Found,
    share: float,
    tables: Sequence[Neighbours],
    history: Rows,
    k: int,
    excluded: Rows,
    within: Subset | None = None,
) -> Blend:
    """An index's answer merged with those of neighbour lists; bit 0 is the index, then they come.

    Args:
        near: at least max(k, LIST_MIN) rows, or all that are left, none of them excluded.
        share: weight of the index; those of the lists are theirs.
        history, excluded, within: as of `similar`.
    """
    depth = max(k, LIST_MIN)
    lists = [
        Listed(similar(table, history, depth, excluded, within), table.share, 2 << place)
        for place, table in enumerate(tables)
    ]
    return blend([Listed(near, share, 1), *lists], k)


def rows_of(table: npt.NDArray[np.uint64], order: Rows, ids: npt.NDArray[np.uint64]) -> Rows:
    """Row of each id, -1 for one that is not in the table.

    Args:
        table: id64 of the items, sorted, shape (m,).
        order: row of each entry of `table`, shape (m,).
        ids: shape (n,), any order.
    """
    if not len(table):
        return np.full(len(ids), -1, np.int64)
    place = np.minimum(np.searchsorted(table, ids), len(table) - 1)
    return np.where(table[place] == ids, order[place], -1).astype(np.int64)
