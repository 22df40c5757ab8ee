"""A catalogue in Redis, a model that is served, and what requests of it cost."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, figure
from bench.serving import rankers
from bench.serving.catalog import Catalog, catalog, store
from bench.serving.load import Calls
from bench.stream.errors import MeasurementFailed
from bench.stream.servers import Servers, reset
from rankstream import topics
from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.kafka import EventProducer
from rankstream.contracts.ids import id64
from rankstream.pb import events_pb2

SEED: Final = 1
SLATE: Final = 20  # items of an answer
SERVED_CORE, OTHER_CORE = {0}, {1}


@dataclass(frozen=True)
class Shop:
    """A catalogue in Redis and the model that ranks it."""

    rows: Catalog
    features: npt.NDArray[np.float32]  # training rows, shape (n, spec.WIDTH)
    artifact: Artifact
    booster: Path


def opened(
    servers: Servers, items: int, users: int, histories: npt.NDArray[np.int64] | None = None
) -> Shop:
    """Store the rows, fit the model and point ranker/champion to it.

    `histories`: places of the last items of each user, shape (users, RECENT); None: popular ones.
    """
    reset(servers)
    now_ms = time.time_ns() // 1_000_000
    rows = catalog(items, users, now_ms=now_ms, seed=SEED)
    if histories is not None:
        hashes = np.array([id64(name) for name in rows.item_ids], np.uint64)
        rows.users["recent"]["item"] = hashes[histories]
    with servers.redis() as client:
        store(rows, client)
    features = rankers.training_rows(rows, now_ms, SEED)
    booster = rankers.fit_trees(features, SEED)
    saved = servers.folder / "booster.ubj"
    booster.save_model(saved)
    graph = rankers.graph_of(booster, features.shape[1])
    artifact = serve(servers, "xgboost", graph, features)
    return Shop(rows, features, artifact, saved)


def serve(
    servers: Servers, family: str, graph: bytes, features: npt.NDArray[np.float32]
) -> Artifact:
    """Write a ranker and point ranker/champion to it."""
    folder = servers.folder / "artifacts"
    artifact = rankers.write_ranker(folder, family, graph, features, SEED)
    asyncio.run(publish(servers, "ranker", artifact))
    return artifact


async def publish(servers: Servers, role: str, artifact: Artifact) -> None:
    """Point the champion of a role to an artefact."""
    pointer = events_pb2.ModelPointer(
        role=role,
        alias="champion",
        model_id=artifact.manifest.model_id,
        uri=artifact.uri,
        sha256=artifact.sha256,
        updated_ms=time.time_ns() // 1_000_000,
    )
    producer = EventProducer(servers.kafka, client_id="bench", delivery_timeout_s=30)
    await producer.send(
        topics.MODELS.name, pointer.SerializeToString(), key=f"{role}/champion".encode()
    )
    await producer.flush_and_close()


@dataclass(frozen=True)
class Cost:
    """Of one request on average, and how long requests took."""

    cpu_ms: float
    p50_ms: float
    p99_ms: float
    per_s: float


def cost(calls: Calls, cpu_s: float, paced: Calls | None = None) -> Cost:
    """What `calls` cost; latencies are those of `paced`, if they were measured apart.

    Raises: MeasurementFailed: some failed, or were answered with less than all was known.
    """
    timed = calls if paced is None else paced
    for one in (calls, timed):
        if one.failed or one.degraded:
            raise MeasurementFailed(f"{one.failed} failed, {one.degraded} degraded")
    p50, p99 = np.quantile(timed.latency_s, (0.5, 0.99)) * 1_000
    done = len(calls.latency_s)
    return Cost(cpu_s * 1_000 / done, float(p50), float(p99), done / calls.wall_s)


def figures(costs: dict[str, list[Cost]]) -> list[Figure]:
    """Rows serving.<name>.<part> of repeated measurements."""
    return [
        figure(f"serving.{name}.{part}", [getattr(cost, part) for cost in runs], unit)
        for name, runs in costs.items()
        for part, unit in (
            ("cpu_ms", "ms of CPU"),
            ("p50_ms", "ms"),
            ("p99_ms", "ms"),
            ("per_s", "requests/s"),
        )
    ]
