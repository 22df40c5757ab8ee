"""`python -m services.features`: settings, clients, app, run."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time

from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.http import serve
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.run import run
from services.features.app import build_app, build_http, highwater_of
from services.features.dead_share import DeadShare
from services.features.measures import Measures
from services.features.settings import PREFIX, FeaturesSettings
from services.features.snapshots import SnapshotFolder
from services.features.worker import Shared
from services.features.workers import ASSIGNED, CAUGHT_UP, Workers

MEASURE_EVERY_S = 0.5
# State is millions of small objects without cycles: full collections only cost time.
GC_THRESHOLDS = (100_000, 50, 100)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(settings: FeaturesSettings) -> None:
    gc.set_threshold(*GC_THRESHOLDS)
    health = Health(ASSIGNED, CAUGHT_UP)
    metrics_of = Metrics(CollectorRegistry())
    producer = EventProducer(settings.kafka_url, client_id="features")
    shared = Shared(
        settings=settings,
        producer=producer,
        snapshots=SnapshotFolder(settings.snapshots),
        measures=Measures(metrics_of),
        dead_share=DeadShare(
            share_max=settings.dead_share_max, window_events=settings.dead_window_events
        ),
        now_ms=now_ms,
    )
    workers = Workers(shared, health)
    app = build_app(settings, workers, asyncio.get_running_loop())
    highwater = highwater_of(app)

    async def stream() -> None:
        await app.start()
        while not workers.failed.done():
            if app.crash_reason is not None:
                raise app.crash_reason
            workers.measure(highwater)
            await asyncio.wait((workers.failed,), timeout=MEASURE_EVERY_S)
        workers.failed.result()

    async def stop() -> None:
        await workers.release()
        await app.stop()
        await producer.flush_and_close()

    http = build_http(workers, health, metrics_of, highwater)
    await serve(http, settings, on_stop=stop, background=(stream(),))


if __name__ == "__main__":
    sys.exit(run(main, FeaturesSettings, PREFIX, sys.argv[1:], os.environ))
