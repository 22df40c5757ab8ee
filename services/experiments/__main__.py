"""`python -m services.experiments`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream.adapters.access import access_of, protect
from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import install_errors, serve
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.run import run
from services.experiments.app import LOG, Experiments, add_routes, scope_of
from services.experiments.settings import PREFIX, ExperimentsSettings

GATHER_MS: Final = 200


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(settings: ExperimentsSettings) -> None:
    registry = CollectorRegistry()
    health = Health(LOG)
    metrics_of = Metrics(registry)
    producer = EventProducer(settings.kafka_url, client_id="experiments")
    experiments = Experiments(
        settings,
        producer=producer,
        reader=lambda names, offsets: LogReader(
            settings.kafka_url,
            names,
            offsets=offsets,
            client_id="experiments",
            gather_ms=GATHER_MS,
        ),
        health=health,
        metrics_of=metrics_of,
        now_ms=now_ms,
    )
    app = FastAPI(title="rankstream experiments", routes=[*health_routes(health, registry)])
    protect(app, access_of(settings.host, settings.keys, metrics_of=metrics_of), scope_of)
    install_errors(app)
    add_routes(app, experiments)
    background = [experiments.follow(), experiments.measure()]
    await serve(app, settings, on_stop=producer.flush_and_close, background=background)


if __name__ == "__main__":
    sys.exit(run(main, ExperimentsSettings, PREFIX, sys.argv[1:], os.environ))
