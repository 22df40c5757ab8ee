"""`Recommend` of a million items: the index in the ranker's process, and as a service of its own.

Trees, and an MMoE of 10 M weights in int8, over 500 candidates or over the 100 of them that a
linear stand-in leaves. User rows fresh from Redis, item rows kept by the ranker as Redis says that
they have not changed. The rows of every user's candidates are read once before it is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import numpy as np

from bench.figures import Figure
from bench.serving import rankers
from bench.serving.load import Calls, closed_loop, open_loop
from bench.serving.processes import Service, start
from bench.serving.shop import (
    OTHER_CORE,
    SEED,
    SERVED_CORE,
    SLATE,
    Cost,
    Shop,
    cost,
    figures,
    opened,
    publish,
    serve,
)
from bench.serving.vectors import Drawn, draw_histories, draw_items, draw_queries
from bench.stream.servers import Servers, started
from pipelines.train.artefact import Origin, write_retrieval
from pipelines.train.retrieval import ItemVectors, mean_towers
from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.cold_vectors import no_vectors
from rankstream.contracts.neighbours import Neighbours
from rankstream.features.rating_table import NO_RATINGS
from rankstream.features.rows import RECENT
from rankstream.pb import ranker_pb2

Say = Callable[[str], None]

ITEMS: Final = 1_000_000
USERS: Final = 300
HELD_OUT: Final = 500
CALLERS: Final = 4
CALLS: Final = 1_000
REPEATS: Final = 3
OPEN_S: Final = 15.0
EMBEDDED: Final = {"RETRIEVAL_IN_PROCESS": "true"}
WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "service": {},
    "embedded": EMBEDDED,
    "prerank": {**EMBEDDED, "PRERANK_KEEP": "100"},
}


def recommend(say: Say, items: int = ITEMS) -> list[Figure]:
    """CPU of the processes that answer, at saturation; latency at half of that rate.

    serving.recommend.{service,embedded,prerank}.* of trees, serving.recommend.mmoe.* of a network.
    """
    with started() as servers:
        shop = indexed(servers, items, say)
        os.sched_setaffinity(0, OTHER_CORE)
        costs = _of_all_ways(servers, shop, "recommend", "trees", say)
        graph = rankers.fit_network(shop.features, SEED)
        serve(servers, "mmoe", graph, shop.features)
        costs |= _of_all_ways(servers, shop, "recommend.mmoe", "network", say)
        return figures(costs)


def _of_all_ways(
    servers: Servers, shop: Shop, prefix: str, ranks: str, say: Say
) -> dict[str, list[Cost]]:
    """All run at once and are asked in turn: a slow minute of the machine is one for each."""
    with ExitStack() as stack:
        running = {
            way: stack.enter_context(serving(servers, shop, settings))
            for way, settings in WAYS.items()
        }
        costs: dict[str, list[Cost]] = {f"{prefix}.{way}": [] for way in WAYS}
        for _ in range(REPEATS):
            for way, services in running.items():
                name = f"recommend, {ranks}, {way}"
                costs[f"{prefix}.{way}"] += costs_of(services, shop, name, say, 1, OPEN_S)
    return costs


def indexed(servers: Servers, items: int, say: Say) -> Shop:
    """A shop of so many items, trees that rank them, and the index that finds them, published.

    Users' histories are of the index's clusters.
    """
    drawn = draw_items(items, seed=SEED)
    shop = opened(servers, items, USERS, draw_histories(drawn, USERS, RECENT, seed=SEED))
    index = write_index(servers, shop, drawn)
    asyncio.run(publish(servers, "retrieval", index))
    say(f"index of {items:,} items: {index.manifest.metrics}")
    return shop


def write_index(
    servers: Servers,
    shop: Shop,
    drawn: Drawn,
    *,
    seed: int = SEED,
    tables: tuple[Neighbours, ...] = (),
) -> Artifact:
    """An index of the shop's items, tuned on queries of its own seed, and neighbour lists."""
    ids = tuple(shop.rows.item_ids)
    now_ms = time.time_ns() // 1_000_000
    return write_retrieval(
        servers.folder / "artifacts",
        mean_towers(ItemVectors(ids, drawn.vectors, np.ones(len(ids), np.float32))),
        tables,
        NO_RATINGS,
        Origin(now_ms, "bench", now_ms - 1, now_ms),
        queries=draw_queries(drawn, HELD_OUT, seed=seed + 1),
        cold=no_vectors(drawn.vectors.shape[1]),
        metrics={},
        parity=0.0,
        seed=seed,
    )


def measured(
    servers: Servers,
    shop: Shop,
    more: Mapping[str, str],
    name: str,
    say: Say,
    repeats: int = REPEATS,
    open_s: float = OPEN_S,
) -> list[Cost]:
    """What a request costs with `more` settings of the ranker.

    open_s: how long its latency is measured at half of the saturation rate; 0: at saturation.
    """
    with serving(servers, shop, more) as running:
        return costs_of(running, shop, f"recommend, {name}", say, repeats, open_s)


@contextmanager
def serving(
    servers: Servers, shop: Shop, more: Mapping[str, str], shards: int = 1
) -> Iterator[list[Service]]:
    """What answers, warmed up, stopped at the end: retrieval, if it is a service, and a ranker."""
    settings = settings_of(servers, shop, more)
    running: list[Service] = []
    if "RETRIEVAL_IN_PROCESS" not in settings:
        for shard in range(shards):
            own = {"ARTIFACTS": settings["ARTIFACTS"], "SHARD": str(shard), "SHARDS": str(shards)}
            running.append(start(servers, "retrieval", own))
        for service in running:
            service.await_ready()
        settings["RETRIEVAL_URL"] = ",".join(service.grpc for service in running)
    ranker = start(servers, "ranker", settings)
    running.append(ranker)
    ranker.await_ready()
    ranker.pin(SERVED_CORE)
    asked(ranker, shop, 2 * USERS)
    yield running
    for service in reversed(running):
        service.stop()


def costs_of(
    running: Sequence[Service], shop: Shop, name: str, say: Say, repeats: int, open_s: float
) -> list[Cost]:
    """What a request costs all that answer it, the last of which is the ranker."""
    ranker, found = running[-1], []
    for _ in range(repeats):
        before = sum(service.cpu_s() for service in running)
        saturated = asked(ranker, shop, CALLS)
        spent_s = sum(service.cpu_s() for service in running) - before
        paced = None
        if open_s:
            half = len(saturated.latency_s) / saturated.wall_s / 2
            paced = asyncio.run(
                open_loop(ranker.grpc, "Recommend", requests_of(shop), per_s=half, seconds=open_s)
            )
        found.append(cost(saturated, spent_s, paced))
        say(f"{name}: {found[-1]}")
    return found


def asked(ranker: Service, shop: Shop, calls: int) -> Calls:
    """Calls of a few callers that do not pause."""
    return asyncio.run(
        closed_loop(ranker.grpc, "Recommend", requests_of(shop), calls=calls, callers=CALLERS)
    )


def settings_of(servers: Servers, shop: Shop, more: Mapping[str, str]) -> dict[str, str]:
    """Settings of a ranker; `more` over those that all have."""
    return {
        "REDIS_URL": servers.redis_url,
        "ARTIFACTS": str(servers.folder / "artifacts"),
        "ROWS_KEPT": str(max(20_000, len(shop.rows.item_ids))),
        # What waits for a core is measured, not refused; an answer without rows would not count.
        "FEATURES_TIMEOUT_MS": "5000",
        "RETRIEVAL_TIMEOUT_MS": "5000",
        **more,
    }


def requests_of(shop: Shop) -> Iterator[ranker_pb2.RecommendRequest]:
    """One user after the other, without end."""
    for user in itertools.cycle(shop.rows.user_ids):
        yield ranker_pb2.RecommendRequest(user_id=user, n=SLATE)
