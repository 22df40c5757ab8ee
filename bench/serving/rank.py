"""`Rank` of given items: the ranker alone on one core, beside plain services of the same model."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import xgboost as xgb

from bench.figures import Figure, figure
from bench.serving.load import closed_loop
from bench.serving.peer import peers
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
)
from bench.stream.servers import Servers, started
from rankstream.pb import ranker_pb2

Say = Callable[[str], None]

ITEMS: Final = 20_000
USERS: Final = 2_000
SIZES: Final = (20, 100, 500)
POOL: Final = 200  # different lists of items
CALLERS: Final = 4
WARM_UP: Final = 200
CALLS: Final = {20: 2_000, 100: 1_500, 500: 1_000}
REPEATS: Final = 3
MODEL_CALLS: Final = 100


def _lists(shop: Shop, size: int) -> Iterator[tuple[str, list[str]]]:
    """Endless users with lists of different items, popular ones more often."""
    rng = np.random.default_rng(SEED)
    ids, users = shop.rows.item_ids, shop.rows.user_ids
    weight = 1.0 / (np.arange(len(ids)) + 100.0)
    share = weight / weight.sum()
    pool = [
        [ids[k] for k in rng.choice(len(ids), size, replace=False, p=share)] for _ in range(POOL)
    ]
    for items in itertools.cycle(pool):
        yield users[int(rng.integers(len(users)))], items


def _requests(shop: Shop, size: int, n: int) -> Iterator[ranker_pb2.RankRequest]:
    for user, items in _lists(shop, size):
        yield ranker_pb2.RankRequest(user_id=user, item_ids=items, n=n)


def _measured(service: Service, shop: Shop, size: int, n: int) -> Cost:
    requests = _requests(shop, size, n)
    before = service.cpu_s()
    done = asyncio.run(
        closed_loop(service.grpc, "Rank", requests, calls=CALLS[size], callers=CALLERS)
    )
    return cost(done, service.cpu_s() - before)


def rank(say: Say) -> list[Figure]:
    """20, 100 and 500 items, 20 of them answered; all 500 answered; the peers with 500, and the
    model alone."""
    with started() as servers:
        return _rank(servers, say)


def _model_alone(shop: Shop) -> float:
    """ms of CPU that XGBoost takes for the model's score of 500 items, on one thread.

    Says how fast this machine is in this run: where the figures to reach come from it was 1.8.
    """
    booster = xgb.Booster({"nthread": 1}, model_file=str(shop.booster))
    rows = shop.features[:500]
    booster.inplace_predict(rows, validate_features=False)
    start = time.thread_time()
    for _ in range(MODEL_CALLS):
        booster.inplace_predict(rows, validate_features=False)
    return (time.thread_time() - start) * 1_000 / MODEL_CALLS


def _rank(servers: Servers, say: Say) -> list[Figure]:
    shop = opened(servers, ITEMS, USERS)
    settings = {
        "REDIS_URL": servers.redis_url,
        "ARTIFACTS": str(servers.folder / "artifacts"),
        # What waits for a core is measured, not refused; an answer on defaults would not count.
        "FEATURES_TIMEOUT_MS": "1000",
        "ITEMS_MAX": "1000",
    }
    service = start(servers, "ranker", settings)
    service.await_ready()
    service.pin(SERVED_CORE)
    os.sched_setaffinity(0, OTHER_CORE)
    asks = {f"{size}": (size, SLATE) for size in SIZES} | {"500_all": (500, 500)}
    costs: dict[str, list[Cost]] = {name: [] for name in asks}
    others = peers(servers, shop, _lists)
    theirs: dict[str, list[float]] = {name: [] for name in others}
    for size, n in asks.values():
        asyncio.run(
            closed_loop(
                service.grpc, "Rank", _requests(shop, size, n), calls=WARM_UP, callers=CALLERS
            )
        )
    alone: list[float] = []
    for _ in range(REPEATS):
        alone.append(_model_alone(shop))
        say(f"XGBoost alone, 500: {alone[-1]:.2f} ms of CPU")
        for name, (size, n) in asks.items():
            costs[name].append(_measured(service, shop, size, n))
            say(f"rank {name}: {costs[name][-1]}")
        for name, peer in others.items():
            theirs[name].append(peer.cpu_ms(500))
            say(f"{name}, 500: {theirs[name][-1]:.1f} ms of CPU")
    service.stop()
    for peer in others.values():
        peer.stop()
    return [
        *figures({f"rank.{name}": runs for name, runs in costs.items()}),
        *(_against(f"peer.{name}.500", runs, costs["500"]) for name, runs in theirs.items()),
        _against("rank.500.xgboost_alone", alone, costs["500"]),
    ]


def _against(name: str, theirs: list[float], ours: list[Cost]) -> Figure:
    row = figure(f"serving.{name}.cpu_ms", theirs, "ms of CPU")
    mean = float(np.mean([cost.cpu_ms for cost in ours]))
    return Figure(
        row.id, row.value, row.unit, row.spread, "serving.rank.500.cpu_ms", row.value / mean
    )
