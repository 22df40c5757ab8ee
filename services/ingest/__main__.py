"""`python -m services.ingest`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys
import time

from prometheus_client import CollectorRegistry

from rankstream.adapters.access import access_of
from rankstream.adapters.apps import build_apps, serve_both
from rankstream.adapters.dead_share import DeadShare
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.run import run
from services.ingest.app import LOG, Intake, routes, scope_of, time_limits, watch_log
from services.ingest.json_topic import JsonTopic
from services.ingest.publisher import Publisher
from services.ingest.settings import PREFIX, IngestSettings


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(settings: IngestSettings) -> None:
    registry = CollectorRegistry()
    metrics_of = Metrics(registry)
    health = Health(LOG)
    log = EventProducer(
        settings.kafka_url, client_id="ingest", delivery_timeout_s=settings.delivery_timeout_s
    )
    publisher = Publisher(log, settings, metrics_of)
    json_topic = JsonTopic(
        settings.kafka_url,
        publisher=publisher,
        limits=time_limits(settings),
        dead_share=DeadShare(
            share_max=settings.dead_share_max, window_events=settings.dead_window_events
        ),
        metrics_of=metrics_of,
    )
    apps = build_apps(
        "rankstream ingest",
        routes(Intake(settings, publisher=publisher, metrics_of=metrics_of, now_ms=now_ms)),
        health,
        registry,
        access=access_of(settings, metrics_of=metrics_of),
        scope_of=scope_of,
        body_bytes_max=settings.body_bytes_max,
    )

    async def stop() -> None:
        await publisher.drain()
        await log.flush_and_close()

    background = [watch_log(log, publisher, health), json_topic.follow()]
    await serve_both(apps, settings, on_stop=stop, background=background)


if __name__ == "__main__":
    sys.exit(run(main, IngestSettings, PREFIX, sys.argv[1:], os.environ))
