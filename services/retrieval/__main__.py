"""`python -m services.retrieval`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys
import time

import structlog
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import serve
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server
from rankstream.adapters.run import run
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.following import followers
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval, read_sources
from rankstream.contracts.shard import Shard
from services.retrieval.app import PENDING_MAX, SERVICE, methods
from services.retrieval.deadlines import Deadlines
from services.retrieval.settings import PREFIX, RetrievalSettings


async def main(settings: RetrievalSettings) -> None:
    registry = CollectorRegistry()
    health = Health(INDEX, ITEMS)
    metrics_of = Metrics(registry)
    retrieval = Retrieval(
        Limits(
            settings.artifacts,
            alias=settings.alias,
            k_max=settings.k_max,
            history_max=settings.history_max,
            exclude_max=settings.exclude_max,
            fresh_max=settings.fresh_max,
            sources=read_sources(settings.sources, PREFIX + "SOURCES"),
            shard=Shard(settings.shard, settings.shards),
        ),
        load=Catalog.load,
        health=health,
        metrics_of=metrics_of,
    )
    address = f"{settings.host}:{settings.grpc_port}"
    every = methods(retrieval, Deadlines(time.perf_counter))
    server, port = await start_server(address, SERVICE, every, health, pending_max=PENDING_MAX)
    structlog.get_logger().info("grpc_listening", port=port)

    async def stop() -> None:
        await server.stop(settings.shutdown_timeout_s)

    now_ms = time.time_ns() // 1_000_000
    background = followers(
        retrieval, settings.kafka_url, now_ms=now_ms, health=health, metrics_of=metrics_of
    )
    await serve(
        Starlette(routes=health_routes(health, registry)),
        settings,
        on_stop=stop,
        background=background,
    )


if __name__ == "__main__":
    sys.exit(run(main, RetrievalSettings, PREFIX, sys.argv[1:], os.environ))
