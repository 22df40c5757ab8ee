"""`Rank` of given items: the ranker alone on one core, beside a plain service of the same model."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx
import numpy as np
import psutil

from bench.figures import Figure, figure
from bench.serving.load import closed_loop
from bench.serving.processes import Service, start
from bench.serving.shop import OTHER_CORE, SEED, SERVED_CORE, Cost, Shop, cost, figures, opened
from bench.stream.errors import MeasurementFailed
from bench.stream.servers import ROOT, Servers, started
from deploy.local.processes import Spec
from deploy.local.services import COMMON, Ports
from pipelines.features.store import apply
from rankstream.pb import ranker_pb2

Say = Callable[[str], None]

ITEMS: Final = 20_000
USERS: Final = 2_000
SLATE: Final = 20
SIZES: Final = (20, 100, 500)
POOL: Final = 200  # different lists of items
CALLERS: Final = 4
WARM_UP: Final = 200
CALLS: Final = {20: 2_000, 100: 1_500, 500: 1_000}
PEER_CALLS: Final = 60
REPEATS: Final = 3
STOP_TIMEOUT_S: Final = 15.0
READY_TIMEOUT_S: Final = 120.0


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
    """20, 100 and 500 items, 20 of them answered; all 500 answered; a plain service with 500."""
    with started() as servers:
        return _rank(servers, say)


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
    peer = _Peer(servers, shop)
    plain: list[float] = []
    for size, n in asks.values():
        asyncio.run(
            closed_loop(
                service.grpc, "Rank", _requests(shop, size, n), calls=WARM_UP, callers=CALLERS
            )
        )
    for _ in range(REPEATS):
        for name, (size, n) in asks.items():
            costs[name].append(_measured(service, shop, size, n))
            say(f"rank {name}: {costs[name][-1]}")
        plain.append(peer.cpu_ms(500))
        say(f"FastAPI, Feast, XGBoost, 500: {plain[-1]:.1f} ms of CPU")
    service.stop()
    peer.stop()
    return [
        *figures({f"rank.{name}": runs for name, runs in costs.items()}),
        _against(plain, costs["500"]),
    ]


def _against(plain: list[float], ours: list[Cost]) -> Figure:
    row = figure("serving.peer.fastapi_feast.500.cpu_ms", plain, "ms of CPU")
    mean = float(np.mean([cost.cpu_ms for cost in ours]))
    return Figure(
        row.id, row.value, row.unit, row.spread, "serving.rank.500.cpu_ms", row.value / mean
    )


class _Peer:
    """The plain service, on the same core as the ranker, which then has nothing to do."""

    def __init__(self, servers: Servers, shop: Shop) -> None:
        registry = servers.folder / "registry.db"
        apply(redis_url=servers.redis_url, registry=registry, offline=servers.folder / "offline")
        port = Ports.free().ranker
        options = {
            "redis-url": servers.redis_url,
            "registry": str(registry),
            "model": str(shop.booster),
            "port": str(port),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        command = (sys.executable, "-m", "bench.serving.peers.fastapi_feast", *arguments)
        spec = Spec("peer", command, COMMON, ROOT, (port,), STOP_TIMEOUT_S)
        self._servers, self._shop = servers, shop
        self._record = servers.processes.start(spec)
        self._url = f"http://127.0.0.1:{port}/rank"
        self._await_ready()
        for thread in psutil.Process(self._record.pid).threads():
            os.sched_setaffinity(thread.id, SERVED_CORE)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._servers.processes.require_running(self._record)
            try:
                self._ask(5, 20)
            except httpx.TransportError:
                time.sleep(0.2)
            else:
                return
        raise MeasurementFailed(f"the plain service was not ready in {READY_TIMEOUT_S:g} s")

    def _ask(self, calls: int, size: int) -> None:
        lists = _lists(self._shop, size)
        with httpx.Client(timeout=30) as client:
            for user, items in itertools.islice(lists, calls):
                body = {"user_id": user, "item_ids": items, "n": SLATE}
                client.post(self._url, json=body).raise_for_status()

    def cpu_ms(self, size: int) -> float:
        """Of a request on average."""
        process = psutil.Process(self._record.pid)
        before = sum(process.cpu_times()[:2])
        self._ask(PEER_CALLS, size)
        return float(sum(process.cpu_times()[:2]) - before) * 1_000 / PEER_CALLS

    def stop(self) -> None:
        self._servers.processes.stop(self._record)
