"""`python -m services.features`: settings, clients, app, run."""

from __future__ import annotations

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
from rankstream.errors import TooManyDeadLetters
from services.features.app import FaustFlow, build_http
from services.features.dead_share import DeadShare, stay_stopped
from services.features.measures import Measures
from services.features.membership import Membership
from services.features.partitions import claim_partitions
from services.features.settings import PREFIX, FeaturesSettings
from services.features.shared import Shared
from services.features.snapshots import SnapshotFolder
from services.features.workers import ASSIGNED, CAUGHT_UP, Workers

# State is millions of small objects without cycles: to look at them often only costs time.
# What is young and has cycles is found at once; the rest every hundred million allocations.
GC_THRESHOLDS = (100_000, 1_000, 100)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def main(settings: FeaturesSettings) -> None:
    gc.set_threshold(*GC_THRESHOLDS)
    health = Health(ASSIGNED, CAUGHT_UP)
    metrics_of = Metrics(CollectorRegistry())
    producer = EventProducer(settings.kafka_url, client_id="features")
    flow = FaustFlow()
    shared = Shared(
        settings=settings,
        producer=producer,
        flow=flow,
        snapshots=SnapshotFolder(settings.snapshots),
        measures=Measures(metrics_of),
        dead_share=DeadShare(
            share_max=settings.dead_share_max, window_events=settings.dead_window_events
        ),
        now_ms=now_ms,
    )
    workers = Workers(shared, health)
    membership = Membership(settings, workers, flow, shared.measures)

    async def stream() -> None:
        workers.partitions = await claim_partitions(settings)
        try:
            await membership.run()
        except TooManyDeadLetters as error:
            await stay_stopped(error, health=health, metrics_of=metrics_of, let_go=membership.leave)

    async def stop() -> None:
        await membership.leave()
        await workers.close()
        await producer.flush_and_close()

    http = build_http(workers, health, metrics_of, flow.highwater)
    await serve(http, settings, on_stop=stop, background=(stream(),))


if __name__ == "__main__":
    sys.exit(run(main, FeaturesSettings, PREFIX, sys.argv[1:], os.environ))
