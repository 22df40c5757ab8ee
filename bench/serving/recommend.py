"""`Recommend` of a million items: the index in the ranker's process, and as a service of its own.

Trees over 500 candidates, user rows fresh from Redis, item rows kept by the ranker as Redis says
that they have not changed. The rows of every user's candidates are read once before it is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from bench.figures import Figure
from bench.serving.load import Calls, closed_loop, open_loop
from bench.serving.processes import Service, start
from bench.serving.shop import (
    OTHER_CORE,
    SEED,
    SERVED_CORE,
    Cost,
    Shop,
    cost,
    figures,
    opened,
    publish,
)
from bench.serving.vectors import Drawn, draw_histories, draw_items, draw_queries
from bench.stream.servers import Servers, started
from pipelines.train.artefact import Origin, write_retrieval
from pipelines.train.retrieval import ItemVectors, mean_towers
from rankstream.adapters.artifacts import Artifact
from rankstream.features.rows import RECENT
from rankstream.pb import ranker_pb2

Say = Callable[[str], None]

ITEMS: Final = 1_000_000
USERS: Final = 300
HELD_OUT: Final = 500
SLATE: Final = 20
CALLERS: Final = 4
CALLS: Final = 1_000
REPEATS: Final = 3
OPEN_S: Final = 15.0


def recommend(say: Say) -> list[Figure]:
    """CPU of the processes that answer, at saturation; latency at half of that rate."""
    with started() as servers:
        shop, index = indexed(servers, ITEMS, USERS)
        say(f"index of {ITEMS:,} items: {index.manifest.metrics}")
        os.sched_setaffinity(0, OTHER_CORE)
        costs = {
            "recommend.service": _measured(servers, shop, say, in_process=False),
            "recommend.embedded": _measured(servers, shop, say, in_process=True),
        }
        return figures(costs)


def indexed(servers: Servers, items: int, users: int) -> tuple[Shop, Artifact]:
    """A shop whose users' histories are of its index's clusters, and the index, published."""
    drawn = draw_items(items, seed=SEED)
    shop = opened(servers, items, users, draw_histories(drawn, users, RECENT, seed=SEED))
    index = write_index(servers, shop, drawn)
    asyncio.run(publish(servers, "retrieval", index))
    return shop, index


def write_index(servers: Servers, shop: Shop, drawn: Drawn, *, seed: int = SEED) -> Artifact:
    """An index of the shop's items, tuned on queries of its own seed."""
    ids = tuple(shop.rows.item_ids)
    now_ms = time.time_ns() // 1_000_000
    return write_retrieval(
        servers.folder / "artifacts",
        mean_towers(ItemVectors(ids, drawn.vectors, np.ones(len(ids), np.float32))),
        (),
        Origin(now_ms, "bench", now_ms - 1, now_ms),
        queries=draw_queries(drawn, HELD_OUT, seed=seed + 1),
        categories={},
        metrics={},
        parity=0.0,
        seed=seed,
    )


def _measured(servers: Servers, shop: Shop, say: Say, *, in_process: bool) -> list[Cost]:
    artifacts = str(servers.folder / "artifacts")
    settings = {
        "REDIS_URL": servers.redis_url,
        "ARTIFACTS": artifacts,
        "ROWS_KEPT": str(ITEMS),
        # What waits for a core is measured, not refused; an answer without rows would not count.
        "FEATURES_TIMEOUT_MS": "5000",
        "RETRIEVAL_TIMEOUT_MS": "5000",
    }
    running: list[Service] = []
    if in_process:
        settings["RETRIEVAL_IN_PROCESS"] = "true"
    else:
        running.append(start(servers, "retrieval", {"ARTIFACTS": artifacts}))
        running[0].await_ready()
        settings["RETRIEVAL_URL"] = running[0].grpc
    ranker = start(servers, "ranker", settings)
    running.append(ranker)
    ranker.await_ready()
    ranker.pin(SERVED_CORE)
    _asked(ranker, shop, 2 * USERS)
    found = []
    for _ in range(REPEATS):
        before = sum(service.cpu_s() for service in running)
        saturated = _asked(ranker, shop, CALLS)
        spent_s = sum(service.cpu_s() for service in running) - before
        half = len(saturated.latency_s) / saturated.wall_s / 2
        paced = asyncio.run(
            open_loop(ranker.grpc, "Recommend", requests_of(shop), per_s=half, seconds=OPEN_S)
        )
        found.append(cost(saturated, spent_s, paced))
        say(f"recommend, {'embedded' if in_process else 'service'}: {found[-1]}")
    for service in reversed(running):
        service.stop()
    return found


def _asked(ranker: Service, shop: Shop, calls: int) -> Calls:
    requests = requests_of(shop)
    return asyncio.run(
        closed_loop(ranker.grpc, "Recommend", requests, calls=calls, callers=CALLERS)
    )


def requests_of(shop: Shop) -> Iterator[ranker_pb2.RecommendRequest]:
    """One user after the other, for ever."""
    for user in itertools.cycle(shop.rows.user_ids):
        yield ranker_pb2.RecommendRequest(user_id=user, n=SLATE)
