"""Candidates: which rows of the item table go on to be scored.

A row is the number of an item in the table of one index; -1 pads a source that found too few.
`exact` is what an approximate index is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Found(NamedTuple):
    """What one source found: rows, shape (k,), best first, and their similarity, shape (k,)."""

    rows: Rows
    similarity: Floats


def exact(vectors: Floats, query: Floats, k: int, excluded: Rows) -> Found:
    """The k rows of largest inner product with the query; equal ones in the order of the table.

    Args:
        vectors: shape (m, dim).
        query: shape (dim,).
        excluded: rows that must not come back, any order, repeats allowed.

    Returns: min(k, rows left) candidates.
    """
    similarity = vectors @ query
    return _best(similarity.astype(np.float32), k, excluded)


def popular(popularity: Floats, k: int, excluded: Rows) -> Found:
    """The k most popular rows, for a user of whom nothing is known; similarity is 0.

    Args:
        popularity: shape (m,), any scale.
        excluded: rows that must not come back.
    """
    found = _best(popularity, k, excluded)
    return Found(found.rows, np.zeros(len(found.rows), np.float32))


def _best(values: Floats, k: int, excluded: Rows) -> Found:
    allowed = np.ones(len(values), bool)
    allowed[excluded] = False
    rows = np.flatnonzero(allowed)
    order = np.argsort(-values[rows], kind="stable")[:k]
    return Found(rows[order].astype(np.int64), values[rows[order]])


def merge(sources: Sequence[Found], k: int) -> tuple[Found, npt.NDArray[np.int8]]:
    """At most k different rows: all of the first source, then what later ones add to it.

    Returns: the candidates, and for each the number of the source that gave it, shape (n,).

    >>> a = Found(np.array([3, 1, -1]), np.ones(3, np.float32))
    >>> b = Found(np.array([1, 7]), np.zeros(2, np.float32))
    >>> found, source = merge([a, b], k=3)
    >>> found.rows.tolist(), source.tolist()
    ([3, 1, 7], [0, 0, 1])
    """
    rows = np.concatenate([source.rows for source in sources])
    similarity = np.concatenate([source.similarity for source in sources])
    origin = np.repeat(
        np.arange(len(sources), dtype=np.int8), [len(source.rows) for source in sources]
    )
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first)
    first = first[rows[first] >= 0][:k]
    return Found(rows[first], similarity[first]), origin[first]


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
