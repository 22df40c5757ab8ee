"""Rating tables: which items the same people rate alike, fitted on the ratings of a log.

Two items are as alike as the cosine of their ratings' residuals, without the means of item and
user, shrunk by how few people rated both; their factors are of the same residuals, by alternating
least squares. Training rows are given tables of ratings strictly before
them, so a model learns what such columns are worth; a service gets the table of all ratings.

Constants are those of MovieLens 100K by time, see ARCHITECTURE.

Sources: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001;
Zhou et al., "Large-Scale Parallel Collaborative Filtering for the Netflix Prize", AAIM 2008.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix, spmatrix

from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.ids import id32, id64
from rankstream.features.rating_table import (
    FACTOR_PENALTY,
    FACTORS,
    LEVEL_STRENGTH,
    NO_RATINGS,
    RatingTable,
)
from rankstream.features.rows import Rows

# Fewer say nothing of who rates alike.
RATINGS_MIN: Final = 1_000
# Of a log: each holds for as many ratings.
TABLES: Final = 24
NEIGHBOURS: Final = 100
DEVIATION_STRENGTH: Final = 10.0
COMMON_STRENGTH: Final = 25.0
ROUNDS: Final = 6  # of least squares, each for people and for items
# What a fit costs goes by people times the square of their ratings, what it holds by items.
ITEMS_MAX: Final = 20_000  # rated most often
PEOPLE_MAX: Final = 20_000  # who rated last
RATINGS_MAX: Final = 500  # newest of each

_ITEMS_AT_ONCE: Final = 512

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ratings:
    """n ratings in order of time: `user` int64, places; `item` uint32, id32; shapes (n,)."""

    user: Ints
    item: npt.NDArray[np.uint32]
    value: Floats
    time_ms: Ints

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: npt.NDArray[np.intp]) -> Ratings:
        """Some of them."""
        return Ratings(self.user[rows], self.item[rows], self.value[rows], self.time_ms[rows])


def ratings_of(columns: EventColumns, rows: npt.NDArray[np.intp]) -> Ratings:
    """The ratings among `rows`, which are in order of event time, each event once."""
    rows = rows[columns.kind[rows] == Kind.RATE]
    _, user = np.unique(_hashes(columns, columns.user_id[rows]), return_inverse=True)
    item = id32_of(_hashes(columns, columns.item_id[rows]))
    return Ratings(user.astype(np.int64), item, columns.value[rows], columns.event_time_ms[rows])


def id32_of(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """id32 of each id64, shape (n,)."""
    return (hashes & np.uint64(id32(-1))).astype(np.uint32)


def _hashes(columns: EventColumns, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """id64 of the texts of these numbers; a text may have several."""
    known, place = np.unique(numbers, return_inverse=True)
    return np.array([id64(columns.strings[k]) for k in known.tolist()], np.uint64)[place]


def fit_rating_table(ratings: Ratings, *, table_id: str = "") -> RatingTable:
    """The table of these ratings; NO_RATINGS if they are fewer than RATINGS_MIN."""
    if len(ratings) < RATINGS_MIN:
        return NO_RATINGS
    kept = ratings.take(_kept(ratings))
    known, item = np.unique(kept.item, return_inverse=True)
    _, user = np.unique(kept.user, return_inverse=True)
    mean = float(kept.value.mean())
    deviation = _mean(item, kept.value - mean, DEVIATION_STRENGTH).astype(np.float32)
    rest = kept.value - mean - deviation[item]
    rest -= _mean(user, rest, LEVEL_STRENGTH)[user]
    shape = (int(user.max()) + 1, len(known))
    # Who rated an item twice has both counted.
    residuals = csc_matrix((rest, (user, item)), shape)
    rated = csc_matrix((np.ones(len(user)), (user, item)), shape)
    rows, weight = _most_alike(residuals, rated)
    factor = _factors(residuals, rated)
    return RatingTable(table_id, known, mean, deviation, rows, weight, factor)


def _kept(ratings: Ratings) -> npt.NDArray[np.intp]:
    """The ratings that a table is made of: of some items, of some people, some of each."""
    names, item, count = np.unique(ratings.item, return_inverse=True, return_counts=True)
    often = np.zeros(len(names), np.bool_)
    often[np.argsort(-count, kind="stable")[:ITEMS_MAX]] = True
    rows = np.flatnonzero(often[item])
    newest_first = rows[::-1]
    user = ratings.user[newest_first]
    people, first = np.unique(user, return_index=True)
    last = np.zeros(int(user.max()) + 1, np.bool_)
    last[people[np.argsort(first)[:PEOPLE_MAX]]] = True
    newest_first = newest_first[last[user]]
    order = np.argsort(ratings.user[newest_first], kind="stable")
    user = ratings.user[newest_first][order]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    return np.sort(newest_first[order[place < RATINGS_MAX]])


def _mean(key: Ints, value: Floats, strength: float) -> Floats:
    """The mean of each key's values and of `strength` zeros."""
    shrunk: Floats = np.bincount(key, value) / (np.bincount(key) + strength)
    return shrunk


def _factors(residuals: csc_matrix, rated: csc_matrix) -> npt.NDArray[np.float32]:
    """Factors of items, float32, shape (m, FACTORS), whose products with people's fit residuals."""
    factor = np.random.default_rng(0).normal(0.0, 0.1, (residuals.shape[1], FACTORS))
    for _ in range(ROUNDS):
        people = _least_squares(residuals, rated, factor)
        factor = _least_squares(residuals.T, rated.T, people)
    return factor.astype(np.float32)


def _least_squares(residuals: spmatrix, rated: spmatrix, other: Floats) -> Floats:
    """Factors of each row, shape (n, FACTORS), given those of the columns."""
    squares = (other[:, :, None] * other[:, None, :]).reshape(len(other), -1)
    gram = (rated @ squares).reshape(-1, FACTORS, FACTORS) + FACTOR_PENALTY * np.eye(FACTORS)
    found: Floats = np.linalg.solve(gram, (residuals @ other)[..., None])[..., 0]
    return found


def _most_alike(
    residuals: csc_matrix, rated: csc_matrix
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Of each item the NEIGHBOURS most alike, and how much; shapes (m, K)."""
    m = residuals.shape[1]
    length = np.sqrt(np.asarray(residuals.multiply(residuals).sum(axis=0)).ravel())
    k = min(NEIGHBOURS, m - 1)
    rows, weight = np.full((m, k), -1, np.int32), np.zeros((m, k), np.float32)
    for start in range(0, m, _ITEMS_AT_ONCE):
        block = slice(start, min(start + _ITEMS_AT_ONCE, m))
        common = (rated[:, block].T @ rated).toarray()
        alike = (residuals[:, block].T @ residuals).toarray()
        alike /= np.maximum(np.outer(length[block], length), 1e-9)
        alike *= common / (common + COMMON_STRENGTH)
        alike[np.arange(len(alike)), np.arange(block.start, block.stop)] = 0.0
        best = np.argpartition(-alike, max(k - 1, 0), axis=1)[:, :k]
        found = np.take_along_axis(alike, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        best, found = (np.take_along_axis(one, order, axis=1) for one in (best, found))
        rows[block] = np.where(found > 0, best, -1)
        weight[block] = np.maximum(found, 0.0)
    return rows, weight


@dataclass(frozen=True, eq=False)
class RatingTables:
    """Tables of one log: table k knows the ratings strictly before from_ms[k], ascending."""

    from_ms: Ints
    tables: tuple[RatingTable, ...]

    def fill(
        self,
        vectors: npt.NDArray[np.float32],
        item: npt.NDArray[np.uint64],
        users: Rows,
        before_ms: Ints,
    ) -> None:
        """As RatingTable.fill, each row by the newest table of what was before its time.

        Args:
            users: USER_ROW, shape (n,), as of those times; before_ms: shape (n,).
        """
        newest = np.searchsorted(self.from_ms, before_ms, side="right") - 1
        for k in np.unique(newest[newest >= 0]).tolist():
            rows = np.flatnonzero(newest == k)
            own = vectors[rows]
            self.tables[k].fill(own, item[rows], users[rows])
            vectors[rows] = own


def fit_rating_tables(ratings: Ratings) -> RatingTables:
    """TABLES of them, or fewer where ratings are few; none is of all ratings."""
    n = len(ratings)
    ends = {int(ratings.time_ms[n * k // TABLES]) for k in range(1, TABLES)} if n else set()
    from_ms, tables = [], []
    for end_ms in sorted(ends):
        before = np.arange(np.searchsorted(ratings.time_ms, end_ms))
        if len(before) >= RATINGS_MIN:
            from_ms.append(end_ms)
            tables.append(fit_rating_table(ratings.take(before)))
    return RatingTables(np.array(from_ms, np.int64), tuple(tables))
