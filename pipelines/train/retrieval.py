"""Sources of candidates, fitted and merged as they are served.

PureSVD: item vectors from what users liked together; a query is the mean of recent items.
Beside it neighbour lists of items (`item_to_item`).

Source: Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation
Tasks", RecSys 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from rankstream.adapters.faiss_index import FaissIndex
from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.errors import InvalidInput
from rankstream.retrieval import LIST_MIN, Blend, Found, blend_with_neighbours

# Chosen on MovieLens 100K by recall@500 on the last tenth of the log.
DIMENSIONS: Final = 16
# Columns are divided by popularity to this power, so that a hit is not in every item's company.
POPULARITY_POWER: Final = 0.5
# Of the index when sources are merged; chosen as the constants of item_to_item were.
INDEX_SHARE: Final = 0.5
_STRENGTH_MIN: Final = 1e-6


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """m items: `vectors` float32, shape (m, dim); `popularity` float32, shape (m,): likes."""

    item_id: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    popularity: npt.NDArray[np.float32]


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


class Retriever:
    """All sources merged, as the service merges them, for histories that are known."""

    def __init__(self, items: ItemVectors, lists: NeighbourLists) -> None:
        self._items = items
        self._lists = lists
        self._index = FaissIndex.build(items.vectors)

    def retrieve(
        self, history: npt.NDArray[np.int64], k: int, excluded: npt.NDArray[np.int64]
    ) -> Blend:
        """The k best rows for a history.

        Args:
            history: rows of the item table, newest first, shape (h,), h > 0, none of them -1.
            excluded: rows that must not come back.
        """
        query = self._items.vectors[history].mean(axis=0)
        near = Found(*self._index.search(query, max(k, LIST_MIN), excluded))
        share, tables = self._lists.index_share, self._lists.tables
        return blend_with_neighbours(near, share, tables, history, k, excluded)
