"""Sources of candidates, fitted and merged as they are served.

An index of item vectors with the tower that makes its queries, and beside it neighbour lists of
items (`item_to_item`). The towers are PureSVD, item vectors from what users liked together with the
mean of recent items as the query, or learned (`two_tower`).

Source: Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation
Tasks", RecSys 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from pipelines.train.graphs import tower_graph
from rankstream.adapters.faiss_index import FaissIndex
from rankstream.contracts.neighbours import Neighbours
from rankstream.errors import InvalidInput
from rankstream.retrieval import LIST_MIN, Blend, Found, blend_with_neighbours

# Chosen on MovieLens 100K by recall@500 on the last tenth of the log.
DIMENSIONS: Final = 16
# Columns are divided by popularity to this power, so that a hit is not in every item's company.
POPULARITY_POWER: Final = 0.5
# Of the index when sources are merged; chosen as the constants of item_to_item were.
INDEX_SHARE: Final = 0.5
_STRENGTH_MIN: Final = 1e-6


Floats = npt.NDArray[np.float32]
# Rows of a history, int64, and their weights, float32, both (1, h) -> query, float32, (1, dim).
Query = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """m items: `vectors` float32, shape (m, dim); `popularity` float32, shape (m,): likes."""

    item_id: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Towers:
    """Item vectors, and the query tower as a graph and as the library has it."""

    family: str
    items: ItemVectors
    graph: bytes
    query: Query
    share: float  # of the index when sources are merged


def mean_towers(items: ItemVectors) -> Towers:
    """The towers of PureSVD: a query is the weighted mean of a history's vectors; -1 is nothing."""

    def query(
        recent: npt.NDArray[np.int64], weight: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        share = np.where(recent[0] >= 0, weight[0], 0.0).astype(np.float64)
        mean = share @ items.vectors[recent[0]] / max(share.sum(), 1e-6)
        queries: npt.NDArray[np.float32] = mean[None].astype(np.float32)
        return queries

    return Towers("pure_svd", items, tower_graph(items.vectors), query, INDEX_SHARE)


def fit_pure_svd(
    item_id: tuple[str, ...],
    user: npt.NDArray[np.int64],
    item: npt.NDArray[np.int64],
    *,
    users: int,
    seed: int,
    dimensions: int = DIMENSIONS,
) -> ItemVectors:
    """Factor the user x item table of likes.

    Args:
        item_id: ids of m items; `item` holds their positions.
        user, item: shape (n,), who liked what; repeats count once.

    Raises: InvalidInput: fewer than two users or items with a like; nothing is fitted.
    """
    liked_items, liking_users = len(np.unique(item)), len(np.unique(user))
    if min(liked_items, liking_users) < 2:
        raise InvalidInput(
            f"invalid_input: {liking_users} users like {liked_items} items (at least 2 of each)."
            " No index was built or registered. Give a longer history."
        )
    table = csr_matrix((np.ones(len(user)), (user, item)), (users, len(item_id)))
    table.data[:] = 1.0
    popularity = np.asarray(table.sum(axis=0)).ravel()
    damped = table.multiply(np.maximum(popularity, 1.0) ** -POPULARITY_POWER).tocsr()
    k = min(dimensions, min(damped.shape) - 1)
    start = np.random.default_rng(seed).normal(size=min(damped.shape))
    _, strength, components = svds(damped, k=k, v0=start)
    # A direction without strength is arbitrary: the table has fewer than k of its own.
    components[strength < _STRENGTH_MIN * strength.max()] = 0.0
    vectors = np.zeros((len(item_id), dimensions), np.float32)
    vectors[:, :k] = components.T
    return ItemVectors(item_id, vectors, popularity.astype(np.float32))


def queries_of(towers: Towers, histories: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """The queries of histories, rows of the item table, -1 unknown; shape (n, dim).

    A history of which nothing is known has none.
    """
    found = [
        towers.query(history[None], np.ones((1, len(history)), np.float32))[0]
        for history in histories
        if (history >= 0).any()
    ]
    return np.array(found, np.float32).reshape(len(found), towers.items.vectors.shape[1])


class Retriever:
    """All sources merged, as the service merges them, for histories that are known."""

    def __init__(self, towers: Towers, tables: tuple[Neighbours, ...]) -> None:
        self._towers = towers
        self._tables = tables
        self._index = FaissIndex.build(towers.items.vectors)

    @property
    def items(self) -> ItemVectors:
        """The table that rows are of."""
        return self._towers.items

    def retrieve(
        self, history: npt.NDArray[np.int64], k: int, excluded: npt.NDArray[np.int64]
    ) -> Blend:
        """The k best rows for a history.

        Args:
            history: rows of the item table, newest first, shape (h,), h > 0, none of them -1.
            excluded: rows that must not come back.
        """
        weight = np.ones((1, len(history)), np.float32)
        (query,) = self._towers.query(history[None], weight)
        near = Found(*self._index.search(query, max(k, LIST_MIN), excluded))
        return blend_with_neighbours(near, self._towers.share, self._tables, history, k, excluded)
