"""One answer of what sources found, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from rankstream.contracts.sources import BIT, FRESH, NAMES, TOWERS, Name, Source, Sources
from rankstream.retrieval import LIST_MIN, Blend, Found, Listed, Rows, blend, largest

_NAME: Final = {BIT[name]: name for name in NAMES}
_FRESH: Final = np.uint32(BIT[FRESH])
NOTHING: Final = Found(np.empty(0, np.int64), np.empty(0, np.float32))


class Raw(NamedTuple):
    """What a source found, whatever its floor and quota, best first; the weight of its scores."""

    name: Name
    found: Found
    share: float


def depth_of(source: Source, share: float, k: int) -> int:
    """How many of a source's best a merge uses: one without a weight only fills its quota."""
    if share or source.name in (TOWERS, FRESH):
        return max(k, LIST_MIN)
    return source.slots(k)[0]


def passes(source: Source, found: Found) -> bool:
    """Whether the best of what a source found is not under its floor."""
    return source.floor is None or bool(found.similarity[0] >= source.floor)


@dataclass
class Merged:
    """Candidates, which sources were merged, and what the configuration did to the answer.

    dropped: sources under their floor. filled: candidates that each fallback gave.
    """

    blend: Blend
    sources: list[Name]
    dropped: list[Name] = field(default_factory=list)
    filled: dict[Name, int] = field(default_factory=dict)


def merge(
    indexes: Sequence[Sequence[Raw]],
    config: Sources,
    k: int,
    *,
    fresh_from: int,
    left: Callable[[], int],
    fallback: Callable[[Name], Rows],
) -> Merged:
    """At most k candidates, best first; fewer only if no source and no fallback has more.

    Args:
        indexes: what sources found in one index, or in each of several that share no row: scores
            of two indexes mean different things, so they are scaled apart, and share the quota.
        fresh_from: rows from here on are fresh items.
        left: how many candidates there are at most.
        fallback: the first k rows that a fallback names.
    """
    dropped: list[Name] = []
    listed = [
        one
        for source in config.sources
        for raws in indexes
        for one in _listed(source, config.of(FRESH), raws, _Quota(k, len(indexes)), dropped)
    ]
    found = blend(listed, k)
    fresh = found.rows >= fresh_from
    if fresh.any():
        named_by = np.where(fresh, found.named_by | _FRESH, found.named_by)
        found = Blend(found.rows, found.score, named_by)
    merged = Merged(found, [_NAME[one.bit] for one in listed], dropped)
    if len(found.rows) < k and len(found.rows) < left():
        _fill(merged, config, k, fallback)
    return merged


class _Quota(NamedTuple):
    """Places of k, shared by so many indexes."""

    k: int
    indexes: int

    def of(self, source: Source) -> tuple[int, int | None]:
        least, most = source.slots(self.k)
        return least // self.indexes, None if most is None else -(-most // self.indexes)


def _listed(
    source: Source,
    of_fresh: Source | None,
    raws: Sequence[Raw],
    quota: _Quota,
    dropped: list[Name],
) -> list[Listed]:
    """A source of one index, if its best is not under its floor, as it goes into the blend."""
    if source.name == FRESH:
        return []  # among the towers
    near = _passing(source, raws, dropped)
    fresh = None
    if source.name == TOWERS and of_fresh is not None:
        fresh = _passing(of_fresh, raws, dropped)
    if fresh is None or of_fresh is None:
        return [] if near is None else [_weighed(source, near.found, near.share, quota)]
    least, most = quota.of(of_fresh)
    found = Found(fresh.found.rows[:most], fresh.found.similarity[:most])
    if near is None:
        return [_weighed(of_fresh, found, fresh.share, quota)]
    together = _best([near.found, found], max(quota.k, LIST_MIN))
    listed = [_weighed(source, together, near.share, quota)]
    if least:
        # Weighed already, among those of the towers.
        claim = Found(found.rows[:least], found.similarity[:least])
        listed.append(_weighed(of_fresh, claim, 0.0, quota))
    return listed


def _passing(source: Source, raws: Sequence[Raw], dropped: list[Name]) -> Raw | None:
    raw = next((raw for raw in raws if raw.name == source.name), None)
    if raw is None or passes(source, raw.found):
        return raw
    dropped.append(source.name)
    return None


def _weighed(source: Source, found: Found, share: float, quota: _Quota) -> Listed:
    return Listed(found, share, BIT[source.name], *quota.of(source))


def _best(parts: Sequence[Found], k: int) -> Found:
    """The k best of all; equal ones in the order of the parts."""
    rows = np.concatenate([part.rows for part in parts])
    scores = np.concatenate([part.similarity for part in parts])
    best = largest(scores, k)
    return Found(rows[best], scores[best])


def _fill(merged: Merged, config: Sources, k: int, fallback: Callable[[Name], Rows]) -> None:
    """Let the fallbacks name what no source has, behind all others."""
    for name in config.fallbacks:
        rows, score, named_by = merged.blend
        room = k - len(rows)
        if not room:
            return
        # Of its first k, no more are named already than there are others than the room.
        ranked = fallback(name)
        more = ranked[~np.isin(ranked, rows)][:room]
        if len(more):
            merged.filled[name] = len(more)
            merged.blend = Blend(
                np.concatenate([rows, more]),
                np.concatenate([score, np.zeros(len(more), np.float32)]),
                np.concatenate([named_by, np.full(len(more), BIT[name], np.uint32)]),
            )
