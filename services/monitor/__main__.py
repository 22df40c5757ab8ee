"""`python -m services.monitor`: settings, clients, app, run."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.http import install_errors, serve
from rankstream.adapters.kafka import LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.run import run
from services.monitor.app import LOG, WATCHED, Monitor, add_routes
from services.monitor.lag import LogEnds
from services.monitor.measures import Measures
from services.monitor.settings import PREFIX, MonitorSettings

GATHER_MS: Final = 500


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(settings: MonitorSettings) -> None:
    registry = CollectorRegistry()
    health = Health(LOG)
    ends = LogEnds(settings.kafka_url)
    monitor = Monitor(
        settings,
        ends=ends,
        reader=lambda offsets: LogReader(
            settings.kafka_url, WATCHED, offsets=offsets, client_id="monitor", gather_ms=GATHER_MS
        ),
        measures=Measures(Metrics(registry)),
        health=health,
        now_ms=now_ms,
    )
    app = FastAPI(title="rankstream monitor", routes=[*health_routes(health, registry)])
    install_errors(app)
    add_routes(app, monitor)
    background = [monitor.follow(), monitor.follow_lag()]
    await serve(app, settings, on_stop=ends.close, background=background)


if __name__ == "__main__":
    sys.exit(run(main, MonitorSettings, PREFIX, sys.argv[1:], os.environ))
