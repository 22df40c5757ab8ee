"""Neighbour lists of items: what a history says of other items, and how much it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The K strongest neighbours of each of m items; rows are those of the item table.

    `rows` int32, shape (m, K), strongest first, -1 where there are fewer; `weight` float32, shape
    (m, K), above 0, 0 where there is none.
    """

    name: str
    rows: npt.NDArray[np.int32]
    weight: npt.NDArray[np.float32]
    last: int  # newest items of a history that count
    fading: float  # each of them counts this much of the next newer one, in (0, 1]
    share: float  # of this source when sources are merged


def in_order(table: Neighbours, order: npt.NDArray[np.int64]) -> Neighbours:
    """The lists of a table in another order: its row r is row order[r] of the one before."""
    now = np.full(len(order) + 1, -1, np.int32)  # the last entry is that of row -1
    now[order] = np.arange(len(order), dtype=np.int32)
    return replace(table, rows=now[table.rows[order]], weight=table.weight[order])
