"""One request's candidates, from all sources that its configuration names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.adapters.neighbour_lists import NeighbourLists
from rankstream.adapters.query_tower import QueryTower
from rankstream.contracts.neighbours import Neighbours
from rankstream.contracts.sources import (
    BIT,
    FRESH,
    NAMES,
    NEAR,
    POPULAR,
    TOWERS,
    TRENDING,
    Name,
    Source,
    Sources,
)
from rankstream.contracts.subset import Subset
from rankstream.ports import Index
from rankstream.retrieval import (
    LIST_MIN,
    Blend,
    Found,
    Listed,
    Rows,
    blend,
    largest,
    popular,
    similar,
)

Floats = npt.NDArray[np.float32]
_NAME: Final = {BIT[name]: name for name in NAMES}
_FRESH: Final = np.uint32(BIT[FRESH])
_UNLIMITED: Final = Source(name=FRESH)
NOTHING: Final = Found(np.empty(0, np.int64), np.empty(0, np.float32))


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
    near: Found = NOTHING  # to one user, in any order

    def table(self, name: str) -> Neighbours | None:
        """The neighbour lists of a name."""
        return next((table for table in self.lists.tables if table.name == name), None)


@dataclass(frozen=True, eq=False)
class Asked:
    """A request in rows of the table; a fresh item's row is its number behind those.

    history: newest first, -1 unknown. excluded: ascending, each once. within: None: all may come.
    """

    history: Rows
    k: int
    excluded: Rows
    within: Subset | None
    fresh: Fresh
    size: int  # rows of the table

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


@dataclass
class Merged:
    """Candidates, which sources were merged, and what the configuration did to the answer.

    dropped: sources under their floor. filled: candidates that each fallback gave.
    """

    blend: Blend
    sources: list[Name]
    dropped: list[Name] = field(default_factory=list)
    filled: dict[Name, int] = field(default_factory=dict)


def merge(origins: Origins, config: Sources, asked: Asked) -> Merged:
    """At most k candidates, best first; fewer only if no source and no fallback has more."""
    listed, dropped = _answers(origins, config, asked)
    found = blend(listed, asked.k)
    if asked.fresh.item_id:
        named_by = np.where(found.rows < asked.size, found.named_by, found.named_by | _FRESH)
        found = Blend(found.rows, found.score, named_by)
    merged = Merged(found, [_NAME[one.bit] for one in listed], dropped)
    if len(merged.blend.rows) < asked.k and len(merged.blend.rows) < asked.left():
        _fill(origins, config, asked, merged)
    return merged


def _answers(origins: Origins, config: Sources, asked: Asked) -> tuple[list[Listed], list[Name]]:
    """What each source answers, but for those under their floor, which are named."""
    listed: list[Listed] = []
    dropped: list[Name] = []
    known = bool((asked.history >= 0).any())
    for source in config.sources:
        if source.name == TOWERS and known:
            listed += _near(origins, source, config.of(FRESH), asked, dropped)
            continue
        found, share = NOTHING, source.weight
        if source.name in (POPULAR, TRENDING, NEAR):
            found = _ranked(
                origins, source.name, asked, _depth(share, asked, source), asked.excluded
            )
        elif known and (table := origins.table(source.name)) is not None:
            share = table.share if share is None else share
            depth = _depth(share, asked, source)
            found = similar(table, asked.history, depth, asked.excluded, asked.within)
        if _passes(source, found, dropped):
            listed.append(_listed(source, found, share, asked))
    return listed, dropped


def _near(
    origins: Origins, source: Source, of_fresh: Source | None, asked: Asked, dropped: list[Name]
) -> list[Listed]:
    """The towers' answer: from the index, and fresh items by their similarity among it."""
    query, depth = origins.tower.embed(asked.history), max(asked.k, LIST_MIN)
    near = Found(*origins.index.search(query, depth, asked.excluded, asked.within))
    near = near if _passes(source, near, dropped) else NOTHING
    share = origins.lists.index_share if source.weight is None else source.weight
    if of_fresh is None or not asked.fresh.item_id:
        return [_listed(source, near, share, asked)] if len(near.rows) else []
    fresh = _nearest_fresh(asked, query, of_fresh)
    if not _passes(of_fresh, fresh, dropped):
        return [_listed(source, near, share, asked)] if len(near.rows) else []
    if not len(near.rows):
        return [_listed(of_fresh, fresh, share, asked)]
    listed = [_listed(source, _together(near, fresh, depth), share, asked)]
    least = of_fresh.slots(asked.k)[0]
    if least:
        # Weighed already, among those of the towers.
        claim = Found(fresh.rows[:least], fresh.similarity[:least])
        listed.append(_listed(of_fresh, claim, 0.0, asked))
    return listed


def _nearest_fresh(asked: Asked, query: Floats, source: Source) -> Found:
    """Fresh items that the source may name; best first if that says which."""
    similarity = asked.fresh.vectors @ query
    if source == _UNLIMITED:
        return Found(asked.fresh_rows, similarity)
    order = np.argsort(-similarity, kind="stable")[: source.slots(asked.k)[1]]
    return Found(asked.fresh_rows[order], similarity[order])


def _together(near: Found, fresh: Found, k: int) -> Found:
    """The k best of both."""
    scores = np.concatenate([near.similarity, fresh.similarity])
    order = np.argsort(-scores, kind="stable")[:k]
    return Found(np.concatenate([near.rows, fresh.rows])[order], scores[order])


def _ranked(origins: Origins, name: Name, asked: Asked, k: int, excluded: Rows) -> Found:
    if name == NEAR:
        return _nearest(origins.near, asked, k, excluded)
    ranked = origins.popular if name == POPULAR else origins.trending
    return popular(ranked, k, excluded, asked.within)


def _nearest(near: Found, asked: Asked, k: int, excluded: Rows) -> Found:
    kept = ~np.isin(near.rows, excluded)
    if asked.within is not None:
        kept &= asked.within.holds(near.rows)
    rows, similarity = near.rows[kept], near.similarity[kept]
    best = largest(similarity, k)
    return Found(rows[best], similarity[best])


def _depth(share: float | None, asked: Asked, source: Source) -> int:
    """How many to ask of a source: one without a weight only fills its quota."""
    return max(asked.k, LIST_MIN) if share else source.slots(asked.k)[0]


def _passes(source: Source, found: Found, dropped: list[Name]) -> bool:
    """Whether a source has something to say, and its best is not under the floor."""
    if not len(found.rows):
        return False
    if source.floor is not None and found.similarity[0] < source.floor:
        dropped.append(source.name)
        return False
    return True


def _listed(source: Source, found: Found, share: float | None, asked: Asked) -> Listed:
    return Listed(found, share or 0.0, BIT[source.name], *source.slots(asked.k))


def _fill(origins: Origins, config: Sources, asked: Asked, merged: Merged) -> None:
    """Let the fallbacks name what no source has, behind all others."""
    for name in config.fallbacks:
        rows = merged.blend.rows
        room = asked.k - len(rows)
        if name != FRESH:
            taken = np.union1d(asked.excluded, rows[rows < asked.size])
            more = _ranked(origins, name, asked, room, taken).rows
        else:
            more = np.setdiff1d(asked.fresh_rows, rows, assume_unique=True)[:room]
        if len(more):
            merged.filled[name] = len(more)
            merged.blend = Blend(
                np.concatenate([rows, more]),
                np.concatenate([merged.blend.score, np.zeros(len(more), np.float32)]),
                np.concatenate([merged.blend.named_by, np.full(len(more), BIT[name], np.uint32)]),
            )
