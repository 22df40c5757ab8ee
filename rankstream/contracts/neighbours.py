"""Neighbour lists of items: what a history says of other items, and how much it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rankstream.contracts.subset import Rows

Floats = npt.NDArray[np.float32]


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

    def named(self, items: Rows, counts: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
        """What lists of n items name, and how much it counts: list by list, strongest first.

        Args:
            items: whose lists, shape (n,).
            counts: how much each of them counts, shape (n,).
        """
        rows = self.rows[items]
        there = rows >= 0
        return rows[there], (self.weight[items] * counts[:, None])[there]


@dataclass(frozen=True, eq=False)
class NeighboursPart:
    """The lists of all m items, cut down to the neighbours that one shard holds.

    List i is `rows` and `weight` from starts[i] to starts[i + 1], strongest first; rows are those
    of the shard, `starts` has shape (m + 1,). The rest is as of `Neighbours`.
    """

    name: str
    rows: npt.NDArray[np.int32]
    weight: Floats
    starts: Rows
    last: int
    fading: float
    share: float

    def named(self, items: Rows, counts: Floats) -> tuple[npt.NDArray[np.int32], Floats]:
        """As `Neighbours.named`."""
        places, of = ranges(self.starts[items], self.starts[items + 1])
        return self.rows[places], self.weight[places] * counts[of]


def part_of(table: Neighbours, kept: Rows, size: int) -> NeighboursPart:
    """Lists cut down to the neighbours `kept`, ascending: row i is then kept[i].

    Args:
        table: some lists, or all, of an item table of `size` rows.
    """
    now = np.full(size + 1, -1, np.int32)  # the last entry is that of row -1
    now[kept] = np.arange(len(kept), dtype=np.int32)
    rows = now[table.rows]
    there = rows >= 0
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.count_nonzero(there, axis=1), out=starts[1:])
    same = table.last, table.fading, table.share
    return NeighboursPart(table.name, rows[there], table.weight[there], starts, *same)


def joined_parts(parts: Sequence[NeighboursPart]) -> NeighboursPart:
    """The lists of several parts of one table, one part behind the other."""
    ends = np.cumsum([0, *(len(part.rows) for part in parts)])
    starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
    return replace(
        parts[0],
        rows=np.concatenate([part.rows for part in parts]),
        weight=np.concatenate([part.weight for part in parts]),
        starts=np.concatenate([*starts, ends[-1:]]),
    )


def in_order(table: Neighbours, order: npt.NDArray[np.int64]) -> Neighbours:
    """The lists of a table in another order: its row r is row order[r] of the one before."""
    now = np.full(len(order) + 1, -1, np.int32)  # the last entry is that of row -1
    now[order] = np.arange(len(order), dtype=np.int32)
    return replace(table, rows=now[table.rows[order]], weight=table.weight[order])


def ranges(starts: Rows, ends: Rows) -> tuple[Rows, Rows]:
    """All numbers of the ranges [starts[i], ends[i]), one range after another, and each one's i."""
    lengths = ends - starts
    of = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return np.arange(len(of)) - before[of] + starts[of], of
