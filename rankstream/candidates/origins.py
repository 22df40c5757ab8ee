"""What each source finds for one request in one process, before anything is merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.adapters.query_tower import QueryTower
from rankstream.candidates.merging import NOTHING, Raw, depth_of
from rankstream.contracts.neighbours import Neighbours, NeighboursPart
from rankstream.contracts.sources import FRESH, NEAR, POPULAR, TOWERS, TRENDING, Name, Sources
from rankstream.contracts.subset import Subset
from rankstream.ports import Index
from rankstream.retrieval import Found, Rows, largest, popular, similar

Floats = npt.NDArray[np.float32]
_RANKED: Final = (POPULAR, TRENDING, NEAR)


class Fresh(NamedTuple):
    """n new items that may come back: their ids and vectors, shape (n, dim)."""

    item_id: list[str]
    vectors: Floats


NOT_FRESH: Final = Fresh([], np.empty((0, 1), np.float32))


@dataclass(frozen=True, eq=False)
class Origins:
    """What sources answer from: an artefact's, and rankings that are the same for all users."""

    tower: QueryTower
    index: Index
    lists: NeighbourLists
    popular: Found
    trending: Found = NOTHING
    near: Found = NOTHING  # to one user, rows ascending

    def table(self, name: str) -> Neighbours | NeighboursPart | None:
        """The neighbour lists of a name."""
        return next((table for table in self.lists.tables if table.name == name), None)


@dataclass(frozen=True, eq=False)
class Asked:
    """A request in rows of the items that are here; a fresh item's row is its number behind those.

    history: rows of all items, wherever they are, newest first, -1 unknown.
    excluded: ascending, each once. within: None: all may come.
    """

    history: Rows
    k: int
    excluded: Rows
    within: Subset | None
    fresh: Fresh
    size: int  # items of the index that are here

    @property
    def fresh_rows(self) -> Rows:
        """Of all fresh items."""
        return self.size + np.arange(len(self.fresh.item_id))

    def left(self) -> int:
        """How many candidates there are at most."""
        rows, out = self.size, len(self.excluded)
        if self.within is not None:
            rows = self.within.count
            out = int(np.count_nonzero(self.within.holds(self.excluded)))
        return rows - out + len(self.fresh.item_id)


def found_by(origins: Origins, config: Sources, asked: Asked) -> list[Raw]:
    """What each source names, as much as a merge can use of it; silent ones are left out."""
    found: list[Raw] = []
    known = bool((asked.history >= 0).any())
    for source in config.sources:
        name, share = source.name, source.weight
        if name == TOWERS:
            share = origins.lists.index_share if share is None else share
            depth = depth_of(source, share, asked.k)
            found += _of_towers(origins, share, depth, config, asked) if known else []
        elif name in _RANKED:
            share = share or 0.0
            ranked = _ranked(origins, name, asked, depth_of(source, share, asked.k))
            found.append(Raw(name, ranked, share))
        elif known and (table := origins.table(name)) is not None:
            share = table.share if share is None else share
            depth = depth_of(source, share, asked.k)
            named = similar(table, asked.history, depth, asked.excluded, asked.within)
            found.append(Raw(name, named, share))
    return [one for one in found if len(one.found.rows)]


def _of_towers(
    origins: Origins, share: float, depth: int, config: Sources, asked: Asked
) -> list[Raw]:
    """The nearest of the index, and of fresh items."""
    query = origins.tower.embed(asked.history)
    near = Found(*origins.index.search(query, depth, asked.excluded, asked.within))
    found = [Raw(TOWERS, near, share)]
    if config.of(FRESH) is not None and asked.fresh.item_id:
        # Not as a product of matrices, whose bits depend on where a row lies.
        similarity = np.einsum("ij,j->i", asked.fresh.vectors, query)
        best = largest(similarity, depth)
        found.append(Raw(FRESH, Found(asked.fresh_rows[best], similarity[best]), share))
    return found


def fallback(origins: Origins, name: Name, asked: Asked) -> Found:
    """The first k that a fallback names, whoever else names them."""
    if name != FRESH:
        return _ranked(origins, name, asked, asked.k)
    rows = asked.fresh_rows[: asked.k]
    return Found(rows, np.zeros(len(rows), np.float32))


def _ranked(origins: Origins, name: Name, asked: Asked, k: int) -> Found:
    if name == NEAR:
        return _nearest(origins.near, asked, k)
    ranked = origins.popular if name == POPULAR else origins.trending
    return popular(ranked, k, asked.excluded, asked.within)


def _nearest(near: Found, asked: Asked, k: int) -> Found:
    kept = ~np.isin(near.rows, asked.excluded)
    if asked.within is not None:
        kept &= asked.within.holds(near.rows)
    rows, similarity = near.rows[kept], near.similarity[kept]
    best = largest(similarity, k)
    return Found(rows[best], similarity[best])
