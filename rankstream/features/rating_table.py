"""What the same people rate alike: two columns of a vector, from a table and the user's ratings.

A table says of every rated item how far its ratings lie from the mean of all, and which other items
were rated alike. A user's ratings, each without the mean, the item and the user's own level, are
carried to those: their weighted mean is the residual that is predicted for a candidate.

Source: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; the
baselines of Koren, "Factor in the Neighbors", ACM TKDD 2010.
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
COLUMNS: Final = 2
# So many ratings of nothing but the mean stand beside a user's own, and so much weight of items
# rated at their baseline beside those that speak for a candidate.
LEVEL_STRENGTH: Final = 5.0
WEIGHT_STRENGTH: Final = 1.0

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
    )
)


@dataclass(frozen=True, eq=False)
class RatingTable:
    """m rated items, and up to K that each of them speaks for.

    `item` uint32, shape (m,), id32, ascending; `mean` of all ratings; `deviation` float32, shape
    (m,), of each item's ratings from it; `rows` int32, shape (m, K), the items that one speaks for,
    most alike first, -1 where there are fewer; `weight` float32, shape (m, K), above 0 for those.
    `table_id` names the artefact it came with.
    """

    table_id: str
    item: npt.NDArray[np.uint32]
    mean: float
    deviation: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item)

    def fill(self, vectors: npt.NDArray[np.float32], item: npt.NDArray[np.uint64], user: Rows) -> None:
        """Write the columns of the table; a table of no items leaves their defaults.

        Args:
            vectors: float32, shape (n, spec.WIDTH), as `snapshot` has made them.
            item: id64 of each candidate, shape (n,).
            user: USER_ROW, shape (1,) for one request, or (n,).
        """
        if len(self) and len(item):
            table = (self.item, self.mean, self.deviation, self.rows, self.weight)
            rated = user["rated"]
            _fill(vectors, item.astype(np.uint32), rated["item"], rated["value"], table)


NO_RATINGS: Final = RatingTable(
    "",
    np.empty(0, np.uint32),
    spec.RATING_PRIOR,
    np.empty(0, np.float32),
    np.empty((0, 0), np.int32),
    np.empty((0, 0), np.float32),
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


@compiled(_OUT, _ITEMS, _RATED_ITEMS, _RATED_VALUES, _TABLE)
def _fill(out: Any, item: Any, rated: Any, value: Any, table: Any) -> None:
    """What each user's ratings say, spread over all items of the table, then read at candidates."""
    known, mean, deviation, rows, weight = table
    summed, named = np.zeros(len(known)), np.zeros(len(known))
    place = np.empty(rated.shape[1], np.int64)
    for u in range(len(rated)):
        ratings, level = 0, 0.0
        while ratings < rated.shape[1] and rated[u, ratings] != 0:
            at = _place(known, rated[u, ratings])
            place[ratings] = at
            level += value[u, ratings] - mean - (deviation[at] if at >= 0 else 0.0)
            ratings += 1
        level /= ratings + LEVEL_STRENGTH
        for k in range(ratings):
            at = place[k]
            if at < 0:
                continue
            residual = value[u, k] - mean - deviation[at] - level
            for s in range(rows.shape[1]):
                to = rows[at, s]
                if to < 0:
                    break
                summed[to] += weight[at, s] * residual
                named[to] += weight[at, s]
        first, last = (0, len(out)) if len(rated) == 1 else (u, u + 1)
        for i in range(first, last):
            at = _place(known, item[i])
            base, residual = mean + level, 0.0
            if at >= 0:
                base += deviation[at]
                residual = summed[at] / (named[at] + WEIGHT_STRENGTH)
            out[i, FIRST] = base + residual
            out[i, FIRST + 1] = residual
        if u + 1 < len(rated):
            summed[:] = 0.0
            named[:] = 0.0
