"""What the same people rate alike: columns of a vector, from a table and the user's last ratings.

A table says of every rated item how far its ratings lie from the mean of all, which other items
were rated alike, and its factors. What is left of a user's ratings without the mean, the items'
deviations and the user's own level is told to a candidate in two ways: as the weighted mean over
items that were rated like it, and by factors of the user, fitted here by ridge regression.

Sources: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001;
Koren, "Factor in the Neighbors", ACM TKDD 2010 (baselines, and both ways beside one another).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt

from rankstream.features import spec
from rankstream.features.compiled import compiled, read_only, types, written
from rankstream.features.rows import Rows

FIRST: Final = spec.NAMES.index(spec.EXPECTED_RATING)
FACTORS: Final = 4
# So many ratings of nothing but the mean stand beside a user's own, and so much weight of items
# rated at their baseline beside those that speak for a candidate.
LEVEL_STRENGTH: Final = 5.0
WEIGHT_STRENGTH: Final = 1.0
FACTOR_PENALTY: Final = 8.0  # of squares, a rating's error being 1

_OUT: Final = written(types.float32, 2)
_ITEMS: Final = read_only(types.uint32, 1)
_RATED_ITEMS: Final = read_only(types.uint32, 2)
_RATED_VALUES: Final = read_only(types.float32, 2)
_TABLE: Final = types.Tuple(
    (
        read_only(types.uint32, 1),
        types.float64,
        read_only(types.float32, 1),
        read_only(types.int32, 2),
        read_only(types.float32, 2),
        read_only(types.float32, 2),
    )
)


@dataclass(frozen=True, eq=False)
class RatingTable:
    """m rated items, and up to K that each of them speaks for.

    `item` uint32, shape (m,), id32, ascending; `mean` of all ratings; `deviation` float32, shape
    (m,), of each item's ratings from it; `rows` int32, shape (m, K), the items that one speaks for,
    most alike first, -1 where there are fewer; `weight` float32, shape (m, K), above 0 for those;
    `factor` float32, shape (m, FACTORS). `table_id` names the artefact it came with.
    """

    table_id: str
    item: npt.NDArray[np.uint32]
    mean: float
    deviation: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    factor: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item)

    def fill(
        self, vectors: npt.NDArray[np.float32], item: npt.NDArray[np.uint64], user: Rows
    ) -> None:
        """Write the columns of the table; a table of no items leaves their defaults.

        Args:
            vectors: float32, shape (n, spec.WIDTH), as `snapshot` has made them.
            item: id64 of each candidate, shape (n,).
            user: USER_ROW, shape (1,) for one request, or (n,).
        """
        if len(self) and len(item):
            alike = self.rows, self.weight
            table = (self.item, self.mean, self.deviation, *alike, self.factor)
            rated = user["rated"]
            hashes = item.astype(np.uint32)
            _fill(vectors, FIRST, hashes, rated["item"], rated["value"], table)


NO_RATINGS: Final = RatingTable(
    "",
    np.empty(0, np.uint32),
    spec.RATING_PRIOR,
    np.empty(0, np.float32),
    np.empty((0, 0), np.int32),
    np.empty((0, 0), np.float32),
    np.empty((0, FACTORS), np.float32),
)


@numba.njit(nogil=True, cache=True)
def _place(known: Any, item: Any) -> int:
    """Where an item stands, -1: nowhere."""
    low, high = 0, len(known)
    while low < high:
        middle = (low + high) // 2
        if known[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low if low < len(known) and known[low] == item else -1


@numba.njit(nogil=True, cache=True)
def _left(place: Any, left: Any, rated: Any, value: Any, table: Any) -> Any:
    """How many ratings a user has, and how far from the baseline of their items they lie in all.

    `place` and `left` get where each one's item stands and what is left of it.
    """
    known, mean, deviation = table[0], table[1], table[2]
    ratings, level = 0, 0.0
    while ratings < len(rated) and rated[ratings] != 0:
        at = _place(known, rated[ratings])
        place[ratings] = at
        left[ratings] = value[ratings] - mean - (deviation[at] if at >= 0 else 0.0)
        level += left[ratings]
        ratings += 1
    level /= ratings + LEVEL_STRENGTH
    left[:ratings] -= level
    return ratings, level


@numba.njit(nogil=True, cache=True)
def _spread(summed: Any, named: Any, place: Any, left: Any, rows: Any, weight: Any) -> None:
    """Add what is left of each rating to the items that its own speaks for."""
    for k in range(len(place)):
        if place[k] < 0:
            continue
        for s in range(rows.shape[1]):
            to = rows[place[k], s]
            if to < 0:
                break
            summed[to] += weight[place[k], s] * left[k]
            named[to] += weight[place[k], s]


@numba.njit(nogil=True, cache=True)
def _factors_of(user: Any, gram: Any, place: Any, left: Any, factor: Any) -> None:
    """The factors that fit what is left of the ratings best, by Cholesky's decomposition."""
    gram[:] = 0.0
    user[:] = 0.0
    for a in range(FACTORS):
        gram[a, a] = FACTOR_PENALTY
    for k in range(len(place)):
        if place[k] < 0:
            continue
        for a in range(FACTORS):
            own = np.float64(factor[place[k], a])
            user[a] += own * left[k]
            for b in range(a + 1):
                gram[a, b] += own * factor[place[k], b]
    for a in range(FACTORS):
        for b in range(a + 1):
            for c in range(b):
                gram[a, b] -= gram[a, c] * gram[b, c]
            gram[a, b] = np.sqrt(gram[a, a]) if a == b else gram[a, b] / gram[b, b]
    for a in range(FACTORS):
        for b in range(a):
            user[a] -= gram[a, b] * user[b]
        user[a] /= gram[a, a]
    for a in range(FACTORS - 1, -1, -1):
        for b in range(a + 1, FACTORS):
            user[a] -= gram[b, a] * user[b]
        user[a] /= gram[a, a]


@compiled(_OUT, types.int64, _ITEMS, _RATED_ITEMS, _RATED_VALUES, _TABLE)
def _fill(out: Any, first_column: Any, item: Any, rated: Any, value: Any, table: Any) -> None:
    """What each user's ratings say, spread over all items of the table, then read at candidates."""
    known, mean, deviation, rows, weight, factor = table
    summed, named = np.zeros(len(known)), np.zeros(len(known))
    place, left = np.empty(rated.shape[1], np.int64), np.empty(rated.shape[1])
    user, gram = np.empty(FACTORS), np.empty((FACTORS, FACTORS))
    for u in range(len(rated)):
        ratings, level = _left(place, left, rated[u], value[u], table)
        if u > 0:
            summed[:] = 0.0
            named[:] = 0.0
        _spread(summed, named, place[:ratings], left[:ratings], rows, weight)
        _factors_of(user, gram, place[:ratings], left[:ratings], factor)
        first, last = (0, len(out)) if len(rated) == 1 else (u, u + 1)
        for i in range(first, last):
            at = _place(known, item[i])
            base, residual, product = mean + level, 0.0, 0.0
            if at >= 0:
                base += deviation[at]
                residual = summed[at] / (named[at] + WEIGHT_STRENGTH)
                for a in range(FACTORS):
                    product += user[a] * factor[at, a]
            out[i, first_column] = base + residual
            out[i, first_column + 1] = residual
            out[i, first_column + 2] = product
