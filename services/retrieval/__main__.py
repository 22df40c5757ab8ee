"""`python -m services.retrieval`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys

import structlog
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from rankstream import topics
from rankstream.adapters.follow import Reader, follow
from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import serve
from rankstream.adapters.kafka import LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server
from rankstream.adapters.run import run
from services.retrieval.app import INDEX, ITEMS, SERVICE, Retrieval
from services.retrieval.catalog import Catalog
from services.retrieval.settings import PREFIX, RetrievalSettings


async def main(settings: RetrievalSettings) -> None:
    registry = CollectorRegistry()
    health = Health(INDEX, ITEMS)
    metrics_of = Metrics(registry)
    retrieval = Retrieval(settings, load=Catalog.load, health=health, metrics_of=metrics_of)

    def reader(topic: topics.Topic, positions: dict[tuple[str, int], int]) -> Reader:
        return LogReader(settings.kafka_url, [topic.name], offsets=positions, client_id="retrieval")

    address = f"{settings.host}:{settings.grpc_port}"
    server, port = await start_server(address, SERVICE, retrieval.methods(), health)
    structlog.get_logger().info("grpc_listening", port=port)

    async def stop() -> None:
        await server.stop(settings.shutdown_timeout_s)

    async def items() -> None:
        # What the index lacks is kept by name: with an index first, that is little.
        await retrieval.indexed.wait()
        await follow(
            lambda positions: reader(topics.ITEMS, positions),
            retrieval.follow_item,
            metrics_of=metrics_of,
            on_caught_up=lambda: health.ready(ITEMS),
        )

    await serve(
        Starlette(routes=health_routes(health, registry)),
        settings,
        on_stop=stop,
        background=[
            # Apart, so that a long load of an index holds up no withdrawal.
            follow(
                lambda positions: reader(topics.MODELS, positions),
                retrieval.follow_model,
                metrics_of=metrics_of,
                on_caught_up=lambda: None,
            ),
            items(),
        ],
    )


if __name__ == "__main__":
    sys.exit(run(main, RetrievalSettings, PREFIX, sys.argv[1:], os.environ))
