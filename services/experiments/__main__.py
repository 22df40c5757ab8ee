"""`python -m services.experiments`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from prometheus_client import CollectorRegistry

from rankstream.adapters.access import access_of
from rankstream.adapters.apps import build_apps, serve_both
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.run import run
from services.experiments.app import LOG, Experiments, routes, scope_of
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
    apps = build_apps(
        "rankstream experiments",
        routes(experiments),
        health,
        registry,
        access=access_of(settings, metrics_of=metrics_of),
        scope_of=scope_of,
    )
    background = [experiments.follow(), experiments.measure()]
    await serve_both(apps, settings, on_stop=producer.flush_and_close, background=background)


if __name__ == "__main__":
    sys.exit(run(main, ExperimentsSettings, PREFIX, sys.argv[1:], os.environ))
