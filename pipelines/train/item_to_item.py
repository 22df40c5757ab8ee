"""Neighbour lists of items: what is used by the same people, and what is used soon after.

Company: EASE, a linear autoencoder without a diagonal, in closed form. It inverts a matrix of all
items that anybody used, so above EASE_ITEMS_MAX of them the cosine of their users stands in; that
reads the newest COMPANY_MAX items of a user, so that nobody costs more than the square of it.
Successors: how often an item came within some places after another.

Constants were chosen on MovieLens 100K by finding each user's second last like, the last one being
unknown too; `bench/quality/leave_one_out.py` tests on the last one.

Sources: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (EASE); Deshpande
and Karypis, "Item-Based Top-N Recommendation Algorithms", ACM TOIS 2004 (cosine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix, csr_matrix

from pipelines.features.replay import TrainingRows
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.features.rows import RECENT
from rankstream.retrieval import rows_of

COMPANY: Final = "company"
SUCCESSORS: Final = "successors"

EASE_ITEMS_MAX: Final = 4_000  # 64 million numbers, some seconds
EASE_PENALTY: Final = 500.0
COMPANY_MAX: Final = 200
COMPANY_NEIGHBOURS: Final = 100
COMPANY_FADING: Final = 0.97
COMPANY_SHARE: Final = 1.0
PLACES: Final = 10
PLACE_FADING: Final = 0.9
# Successors are divided by popularity to this power: some films come after any film.
POPULARITY_POWER: Final = 0.25
SUCCESSOR_NEIGHBOURS: Final = 200
SUCCESSOR_LAST: Final = 10
SUCCESSOR_FADING: Final = 0.9
SUCCESSOR_SHARE: Final = 0.7

_ROWS_AT_ONCE: Final = 4_096

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Actions:
    """n first actions of users on items: `user`, `item` int64, shape (n,), each user's in order."""

    user: Ints
    item: Ints

    @classmethod
    def of(cls, user: Ints, item: Ints) -> Actions:
        """Of actions in order of time, users mixed, each user's first one on an item."""
        order = np.argsort(user, kind="stable")
        user, item = user[order], item[order]
        pairs = user * (int(item.max(initial=0)) + 1) + item
        first = np.sort(np.unique(pairs, return_index=True)[1])
        return cls(user[first], item[first])


def actions_before(rows: TrainingRows, item_id: tuple[str, ...]) -> Actions:
    """What users did before their last row, as the rows' `recent` tell it.

    Of two rows of a user, the later one's list is the earlier one's behind what was done in
    between, so each action is read once. More than RECENT actions between two rows are lost.

    Args:
        item_id: the item table; `Actions.item` holds places in it. Other items are left out.
    """
    order = np.argsort(rows.user, kind="stable")
    user, news = rows.user[order], np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        at = np.arange(start, min(start + _ROWS_AT_ONCE, len(rows)))
        earlier = rows.recent[order[np.maximum(at - 1, 0)]]
        earlier[(at == 0) | (user[at] != user[at - 1])] = 0
        news[at] = _shift(earlier, rows.recent[order[at]])
    # Oldest first: the last of the news of a row is its earliest.
    row = np.repeat(np.arange(len(rows)), news)
    back = np.repeat(np.cumsum(news), news) - np.arange(len(row)) - 1
    hashes = rows.recent[order[row], back]
    table = np.array([id64(name) for name in item_id], np.uint64)
    by_hash = np.argsort(table).astype(np.int64)
    item = rows_of(table[by_hash], by_hash, hashes)
    known = item >= 0
    return Actions.of(user[row][known], item[known])


def _shift(earlier: npt.NDArray[np.uint64], later: npt.NDArray[np.uint64]) -> Ints:
    """How many new entries are in front of the earlier ones, row by row; shapes (n, RECENT)."""
    news = np.full(len(later), RECENT, np.int64)
    open_ = np.arange(len(later))
    for shift in range(RECENT):
        same = (later[open_, shift:] == earlier[open_, : RECENT - shift]).all(axis=1)
        news[open_[same]] = shift
        open_ = open_[~same]
        if not len(open_):
            break
    known: Ints = np.minimum(news, (later != 0).sum(axis=1))
    return known


def fit_item_to_item(actions: Actions, *, items: int) -> tuple[Neighbours, ...]:
    """Lists of company and of successors.

    Args:
        items: m, rows of the item table; those that nobody used have empty lists.
    """
    return (
        Neighbours(
            COMPANY,
            *_strongest(_company(actions, items), COMPANY_NEIGHBOURS),
            last=RECENT,
            fading=COMPANY_FADING,
            share=COMPANY_SHARE,
        ),
        Neighbours(
            SUCCESSORS,
            *_strongest(_successors(actions, items), SUCCESSOR_NEIGHBOURS),
            last=SUCCESSOR_LAST,
            fading=SUCCESSOR_FADING,
            share=SUCCESSOR_SHARE,
        ),
    )


def _company(actions: Actions, items: int) -> csr_matrix:
    if len(np.unique(actions.item)) <= EASE_ITEMS_MAX:
        return ease(actions, items)
    return cosine(actions, items)


def ease(actions: Actions, items: int) -> csr_matrix:
    """What a use of item i adds to the score of item j where that is above 0, shape (m, m).

    At most COMPANY_NEIGHBOURS in a row, and those as large as the last of them.
    """
    used, column = np.unique(actions.item, return_inverse=True)
    table = _table(actions.user, column, len(used))
    gram = (table.T @ table).toarray()
    gram[np.diag_indices_from(gram)] += EASE_PENALTY
    precision = np.linalg.inv(gram)
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    k = min(COMPANY_NEIGHBOURS, len(used))
    least = np.partition(weights, len(used) - k, axis=1)[:, len(used) - k]
    i, j = np.nonzero((weights > 0) & (weights >= least[:, None]))
    return csr_matrix((weights[i, j], (used[i], used[j])), (items, items))


def cosine(actions: Actions, items: int) -> csr_matrix:
    """Users of both items over the geometric mean of the users of each, shape (m, m)."""
    behind = np.searchsorted(actions.user, actions.user, side="right") - np.arange(
        len(actions.user)
    )
    newest = behind <= COMPANY_MAX
    table = _table(actions.user[newest], actions.item[newest], items)
    length = np.sqrt(np.maximum(np.asarray(table.sum(axis=0)).ravel(), 1.0))
    scaled = table.multiply(1.0 / length).tocsc()
    parts = []
    for start in range(0, items, _ROWS_AT_ONCE):
        block = (scaled[:, start : start + _ROWS_AT_ONCE].T @ scaled).tocoo()
        other = block.row + start != block.col
        parts.append((block.data[other], block.row[other] + start, block.col[other]))
    data, row, column = (np.concatenate(each) for each in zip(*parts, strict=True))
    return csr_matrix((data, (row, column)), (items, items))


def _successors(actions: Actions, items: int) -> csr_matrix:
    counts = csr_matrix((items, items))
    for places in range(1, PLACES + 1):
        same = np.flatnonzero(actions.user[:-places] == actions.user[places:])
        pairs = (actions.item[same], actions.item[same + places])
        weight = np.full(len(same), PLACE_FADING ** (places - 1))
        counts = counts + coo_matrix((weight, pairs), (items, items)).tocsr()
    used = np.maximum(np.bincount(actions.item, minlength=items), 1)
    return counts.multiply(used**-POPULARITY_POWER).tocsr()


def _table(user: Ints, item: Ints, items: int) -> csr_matrix:
    return csr_matrix((np.ones(len(user)), (user, item)), (int(user.max(initial=0)) + 1, items))


def _strongest(
    weights: csr_matrix, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The k largest of each row, largest first: columns, -1 padded, and weights; shapes (m, k)."""
    entries = weights.tocoo()
    order = np.lexsort((entries.col, -entries.data, entries.row))
    row = entries.row[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < k
    rows = np.full((weights.shape[0], k), -1, np.int32)
    found = np.zeros((weights.shape[0], k), np.float32)
    rows[row[kept], place[kept]] = entries.col[order][kept]
    found[row[kept], place[kept]] = entries.data[order][kept]
    return rows, found
