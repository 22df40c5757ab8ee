"""`Recommend` with retrieval in one process, and in shards: what more of them cost and save.

An index of cells and neighbour lists as long as those that are trained, all on one machine. How
good the candidates of shards are is counted on the same artefact, against exact search.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from bench.figures import Figure
from bench.serving.recommend import REPEATS, USERS, costs_of, serving, write_index
from bench.serving.retrieval import MEASURED_ON, K
from bench.serving.shop import OTHER_CORE, SEED, Cost, figures, opened, publish
from bench.serving.vectors import TAKEN, Drawn, draw_histories, draw_items
from bench.stream.servers import started
from rankstream.adapters.artifacts import Artifact
from rankstream.candidates.catalog import Catalog, Question
from rankstream.candidates.shards import joined
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.contracts.shard import Shard
from rankstream.contracts.sources import Source, Sources
from rankstream.features.rows import RECENT

Say = Callable[[str], None]

ITEMS: Final = 200_000
COUNTS: Final = (1, 2, 4)
LISTS: Final = {"company": 100, "successors": 200}  # neighbours of an item, as they are trained
OPEN_S: Final = 10.0
_TOWERS: Final = Sources(sources=(Source(name="towers"),), fallbacks=())


def sharded(say: Say) -> list[Figure]:
    """serving.shards.{1,2,4}: cpu_ms, p50_ms, p99_ms and per_s of a request, memory and recall."""
    drawn = draw_items(ITEMS, seed=SEED)
    costs: dict[str, list[Cost]] = {}
    found: list[Figure] = []
    with started() as servers:
        shop = opened(servers, ITEMS, USERS, draw_histories(drawn, USERS, RECENT, seed=SEED))
        index = write_index(servers, shop, drawn, tables=tuple(lists_of(drawn)))
        asyncio.run(publish(servers, "retrieval", index))
        say(f"index of {ITEMS:,} items: {index.manifest.metrics}")
        os.sched_setaffinity(0, OTHER_CORE)
        for count in COUNTS:
            with serving(servers, shop, {"QUEUE_WAIT_MS": "5000"}, count) as running:
                name = f"shards.{count}"
                costs[name] = costs_of(running, shop, f"{count} shards", say, REPEATS, OPEN_S)
                gb = [service.rss_bytes() / 1e9 for service in running[:-1]]
            found.append(Figure(f"serving.{name}.gb", sum(gb), "GB of all shards"))
            found.append(Figure(f"serving.{name}.recall500", recall(index, drawn, count), "share"))
            say(f"{count} shards: {gb} GB, recall {found[-1].value:.4f}")
    return [*figures(costs), *found]


def lists_of(drawn: Drawn) -> Iterator[Neighbours]:
    """Lists of as many items of the same cluster, or of the one behind it."""
    rng = np.random.default_rng(SEED)
    order = np.argsort(drawn.cluster, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    for name, length in LISTS.items():
        # Different places behind the item's own, so nobody is named twice.
        steps = np.cumsum(rng.integers(1, 4, (len(order), length)), axis=1)
        rows = order[(place[:, None] + steps) % len(order)].astype(np.int32)
        weight = -np.sort(-rng.random(rows.shape, np.float32), axis=1) + np.float32(0.01)
        yield Neighbours(name, rows, weight, last=50, fading=0.95, share=0.5)


def recall(index: Artifact, drawn: Drawn, count: int) -> float:
    """Of the K nearest of exact search, what the towers of so many shards find together."""
    parts = [Catalog.load(index.uri, index.sha256, Shard(n, count)) for n in range(count)]
    names = np.array([f"item-{n}" for n in range(len(drawn.vectors))])
    hashes = np.array([id64(name) for name in names.tolist()], np.uint64)
    none = np.empty(0, np.int64)
    shares = []
    for history in draw_histories(drawn, MEASURED_ON, TAKEN, seed=SEED + 2):
        question = Question(hashes[history], K, none, sources=_TOWERS)
        answer = joined([part.found(question) for part in parts], _TOWERS, K)
        query = drawn.vectors[history].mean(axis=0)
        nearest = names[np.argpartition(-(drawn.vectors @ query), K)[:K]]
        shares.append(len(set(answer.item_ids) & set(nearest.tolist())) / K)
    return float(np.mean(shares))
