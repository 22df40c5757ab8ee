"""One answer of what the shards of an index found: the same as of one process that holds them all.

Each shard sends what each of its sources found, with scores, and nobody blends before all are
together, because a blend scales a source by all that it found. Rows are those of the table of all
items, so equal scores are in the order that they have in one process; only new items with equal
scores are in an order of their own. A shard that holds another index than the others, as in a swap,
is merged beside them: `merge` scales its lists apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.candidates.answer import Candidates, candidates_of
from rankstream.candidates.merging import Raw, depth_of, merge, passes
from rankstream.contracts.shard import Shard
from rankstream.contracts.sources import NAMES, Name, Sources
from rankstream.pb import retrieval_pb2 as pb
from rankstream.retrieval import Found, Rows, largest

_NAMED: Final[dict[str, Name]] = {name: name for name in NAMES}


@dataclass(frozen=True, eq=False)
class ShardFound:
    """What the sources of one shard found, and what its fallbacks would give.

    Rows are those of the table of all items; that of a new item is its number behind them.
    """

    index_id: str
    items: int  # of the table of all items
    raws: list[Raw]
    fallbacks: list[Raw]  # none if sources surely have enough
    left: int  # candidates that this shard has at most, or k at least
    rows: Rows  # that are named anywhere, ascending, each once
    item_id: Sequence[str]  # of `rows`
    degraded: tuple[str, ...]


def surely_named(raws: Sequence[Raw], config: Sources, k: int) -> int:
    """Candidates that are in the answer of all shards, whatever others find, unless it is full.

    Not those of a source with a limit, or without a weight: others may take its places.
    """
    rows = [
        raw.found.rows
        for raw in raws
        if (source := config.of(raw.name)) is not None
        and source.max_share == 1
        and raw.share
        and passes(source, raw.found)
    ]
    most = max(map(len, rows), default=0)
    return most if most >= k or len(rows) < 2 else len(np.unique(np.concatenate(rows)))


def encode(found: ShardFound, shard: Shard, sources: bytes) -> pb.ShardReply:
    """The message of a shard's answer; `sources`: their configuration as JSON."""
    return pb.ShardReply(
        shard=shard.number,
        shards=shard.of,
        sources=sources,
        index_id=found.index_id,
        items=found.items,
        left=found.left,
        degraded=found.degraded,
        found=map(_message, found.raws),
        fallback=map(_message, found.fallbacks),
        row=found.rows.astype("<u4").tobytes(),
        item_id=found.item_id,
    )


def _message(raw: Raw) -> pb.SourceFound:
    return pb.SourceFound(
        source=raw.name,
        share=raw.share,
        row=raw.found.rows.astype("<u4").tobytes(),
        score=raw.found.similarity.astype("<f4").tobytes(),
    )


def decode(reply: pb.ShardReply) -> ShardFound:
    """What a shard's answer says; a source that is unknown here is left out."""
    return ShardFound(
        reply.index_id,
        reply.items,
        [_raw(one) for one in reply.found if one.source in _NAMED],
        [_raw(one) for one in reply.fallback if one.source in _NAMED],
        reply.left,
        np.frombuffer(reply.row, "<u4").astype(np.int64),
        reply.item_id,
        tuple(reply.degraded),
    )


def _raw(message: pb.SourceFound) -> Raw:
    rows = np.frombuffer(message.row, "<u4").astype(np.int64)
    found = Found(rows, np.frombuffer(message.score, "<f4"))
    return Raw(_NAMED[message.source], found, message.share)


def joined(parts: Sequence[ShardFound], config: Sources, k: int) -> Candidates:
    """At most k candidates of all shards that have answered, one at least."""
    starts, total = dict[str, int](), 0
    for part in parts:
        if part.index_id not in starts:
            starts[part.index_id] = total
            total += part.items
    parts = [
        _renumbered(part, starts[part.index_id], total, number, len(parts))
        for number, part in enumerate(parts)
    ]

    def fallback(name: Name) -> Rows:
        found = [raw.found for part in parts for raw in part.fallbacks if raw.name == name]
        return _best(found, k).rows if found else np.empty(0, np.int64)

    merged = merge(
        [
            _together(
                [raw for part in parts if part.index_id == one for raw in part.raws], config, k
            )
            for one in starts
        ],
        config,
        k,
        fresh_from=total,
        left=lambda: sum(part.left for part in parts),
        fallback=fallback,
    )
    degraded = tuple(dict.fromkeys(reason for part in parts for reason in part.degraded))
    return candidates_of(merged, lambda rows: _item_ids(parts, rows), degraded)


def index_id_of(parts: Sequence[ShardFound]) -> str:
    """The index that answered; if shards hold different ones, all of them, joined by `+`."""
    return "+".join(dict.fromkeys(part.index_id for part in parts))


def _renumbered(part: ShardFound, start: int, total: int, number: int, of: int) -> ShardFound:
    """The same with rows that no other part has: indexes one after the other, then new items."""
    has_fresh = len(part.rows) > 0 and part.rows[-1] >= part.items

    def again(rows: Rows) -> Rows:
        if not has_fresh:
            return rows + start
        return np.where(rows < part.items, rows + start, total + (rows - part.items) * of + number)

    def of_raw(raw: Raw) -> Raw:
        return raw._replace(found=Found(again(raw.found.rows), raw.found.similarity))

    return replace(
        part,
        raws=[of_raw(raw) for raw in part.raws],
        fallbacks=[of_raw(raw) for raw in part.fallbacks],
        rows=again(part.rows),
    )


def _together(raws: Sequence[Raw], config: Sources, k: int) -> list[Raw]:
    """Each source's best of several shards of one index."""
    together = []
    for source in config.sources:
        found = [raw for raw in raws if raw.name == source.name]
        if found:
            share = found[0].share
            best = _best([raw.found for raw in found], depth_of(source, share, k))
            together.append(Raw(source.name, best, share))
    return together


def _best(found: Sequence[Found], k: int) -> Found:
    """The k best of all; equal ones by row."""
    rows = np.concatenate([one.rows for one in found])
    scores = np.concatenate([one.similarity for one in found])
    by_row = np.argsort(rows)
    best = by_row[largest(scores[by_row], k)]
    return Found(rows[best], scores[best])


def _item_ids(parts: Sequence[ShardFound], rows: Rows) -> list[str]:
    """The id of each row."""
    named: npt.NDArray[np.int64] = np.concatenate([part.rows for part in parts])
    if not len(rows):
        return []
    order = np.argsort(named)
    at = order[np.searchsorted(named, rows, sorter=order)]
    ends = np.cumsum([len(part.rows) for part in parts])
    of = np.searchsorted(ends, at, side="right")
    places = (at - np.concatenate([[0], ends])[of]).tolist()
    item_ids = [part.item_id for part in parts]
    return [item_ids[part][place] for part, place in zip(of.tolist(), places, strict=True)]
