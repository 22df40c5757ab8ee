"""Services that a user would pick instead, on the same core as the ranker, which then waits."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import httpx
import psutil

from bench.serving.shop import SERVED_CORE, SLATE, Shop
from bench.stream.errors import MeasurementFailed
from bench.stream.servers import ROOT, Servers
from deploy.local.environments import environment
from deploy.local.processes import Spec
from deploy.local.services import COMMON, Ports
from pipelines.features.store import apply

CALLS: Final = 60
STOP_TIMEOUT_S: Final = 15.0
READY_TIMEOUT_S: Final = 120.0

Lists = Iterator[tuple[str, list[str]]]


def peers(servers: Servers, shop: Shop, lists: Callable[[Shop, int], Lists]) -> dict[str, Peer]:
    """Each by the name that its figures have, ready to be asked.

    lists: endless users with so many items each.
    """

    def started(name: str, command: Callable[[int], list[str]], environ: dict[str, str]) -> Peer:
        port = Ports.free().ranker
        return Peer(servers, name, command(port), environ, port, lambda size: lists(shop, size))

    return {
        "fastapi_feast": started("fastapi_feast", lambda port: _feast(servers, shop, port), {}),
        "bentoml": started("bentoml", _bentoml, _bentoml_environ(servers, shop)),
    }


def _feast(servers: Servers, shop: Shop, port: int) -> list[str]:
    registry = servers.folder / "registry.db"
    apply(redis_url=servers.redis_url, registry=registry, offline=servers.folder / "offline")
    options = {
        "redis-url": servers.redis_url,
        "registry": str(registry),
        "model": str(shop.booster),
        "port": str(port),
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "bench.serving.peers.fastapi_feast", *arguments]


def _bentoml(port: int) -> list[str]:
    python = environment("serving_peers")
    service = "bench.serving.peers.bentoml_service:Ranking"
    command = [str(python), "-m", "bentoml", "serve", service]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def _bentoml_environ(servers: Servers, shop: Shop) -> dict[str, str]:
    return {
        "PEER_REDIS_URL": servers.redis_url,
        "PEER_MODEL": str(shop.booster),
        "BENTOML_HOME": str(servers.folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


class Peer:
    """One running service, with all its processes."""

    def __init__(
        self,
        servers: Servers,
        name: str,
        command: list[str],
        environ: Mapping[str, str],
        port: int,
        lists: Callable[[int], Lists],
    ) -> None:
        self._servers, self._lists, self._name = servers, lists, name
        spec = Spec(name, tuple(command), {**COMMON, **environ}, ROOT, (port,), STOP_TIMEOUT_S)
        self._record = servers.processes.start(spec)
        self._url = f"http://127.0.0.1:{port}/rank"
        self._await_ready()
        for process in self._processes():
            for thread in process.threads():
                os.sched_setaffinity(thread.id, SERVED_CORE)

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self._record.pid)
        return [first, *first.children(recursive=True)]

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._servers.processes.require_running(self._record)
            try:
                self._ask(5, 20)
            except (httpx.TransportError, httpx.HTTPStatusError):
                time.sleep(0.2)
            else:
                return
        raise MeasurementFailed(f"{self._name} was not ready in {READY_TIMEOUT_S:g} s")

    def _ask(self, calls: int, size: int) -> None:
        with httpx.Client(timeout=30) as client:
            for user, items in itertools.islice(self._lists(size), calls):
                body = {"user_id": user, "item_ids": items, "n": SLATE}
                client.post(self._url, json=body).raise_for_status()

    def cpu_ms(self, size: int) -> float:
        """Of a request on average."""
        before = self._cpu_s()
        self._ask(CALLS, size)
        return (self._cpu_s() - before) * 1_000 / CALLS

    def _cpu_s(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in self._processes()))

    def stop(self) -> None:
        """End it."""
        self._servers.processes.stop(self._record)
