"""Fold the event log into features, labels and sessions, and keep it in the lake.

In:  topics events, feature-updates, items; for the lake also labels and served.
Out: feature rows in Redis; topics labels, sessions, feature-updates, events.dead; Delta tables.

Faust brings membership, assignment and records. Everything that must be right is not left to it:
offsets live with the state that they belong to (Redis, the lake), outputs go through an idempotent
producer of our own, and there are no Faust tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import faust
from faust.types import TP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rankstream import topics
from rankstream.adapters.health import Health, health_routes
from rankstream.adapters.log_reader import plain_headers
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.record import Record
from services.features.settings import FeaturesSettings
from services.features.workers import Workers

APP_ID: Final = "features"
READ: Final = (topics.EVENTS, topics.FEATURE_UPDATES, topics.ITEMS, topics.LABELS, topics.SERVED)
BUFFER_RECORDS: Final = 500
HEARTBEATS_PER_SESSION: Final = 4
QUIET: Final = ("faust", "aiokafka", "mode")


class FaustFlow:
    """Faust's delivery of single partitions, paused while a worker reads their log itself.

    Faust spends some 80 µs on each record that it delivers, whatever is in it.
    """

    def __init__(self) -> None:
        self.app: faust.App | None = None
        self._paused: set[TP] = set()

    def pause(self, topic: str, partition: int) -> None:
        """Deliver no more."""
        self._paused.add(TP(topic, partition))
        self._apply({TP(topic, partition)})

    async def resume(self, topic: str, partition: int, offset: int) -> None:
        """Deliver from `offset` on."""
        place = TP(topic, partition)
        self._paused.discard(place)
        if self.app is not None and place in self.app.consumer.assignment():
            await self.app.consumer.seek(place, offset)
            self.app.consumer.resume_partitions({place})

    def passes(self, place: TP) -> bool:
        """Whether a record may pass; Faust itself resumes all partitions after a rebalance."""
        if place not in self._paused:
            return True
        self._apply({place})
        return False

    def highwater(self, topic: str, partition: int) -> int | None:
        """The end of a partition's log, as Faust's consumer last heard of it."""
        if self.app is None:
            return None
        end = self.app.consumer.highwater(TP(topic, partition))
        return None if end is None else int(end)

    def _apply(self, places: set[TP]) -> None:
        if self.app is not None:
            self.app.consumer.pause_partitions(places)


def build_app(
    settings: FeaturesSettings, workers: Workers, flow: FaustFlow, loop: Any
) -> faust.App:
    """The Faust app: hands every record, and every change of the assignment, to `workers`."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    app = faust.App(
        APP_ID,
        broker=f"kafka://{settings.kafka_url}",
        loop=loop,
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / HEARTBEATS_PER_SESSION,
        stream_buffer_maxsize=BUFFER_RECORDS,
        stream_wait_empty=False,
    )
    source = app.topic(*(topic.name for topic in READ), value_type=bytes)

    @app.agent(source, name="deliver")
    async def deliver(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            if not flow.passes(message.tp):
                continue
            record = Record(
                message.topic,
                message.partition,
                message.offset,
                round(message.timestamp * 1000),
                message.key or b"",
                message.value,
                plain_headers(message.headers),
            )
            workers.deliver(record)

    async def revoked(_app: Any, *_: Any, **__: Any) -> None:
        await workers.release()

    async def assigned(_app: Any, *arguments: Any, **_: Any) -> None:
        known = {topic.name for topic in READ}
        partitions: set[TP] = arguments[0]
        await workers.assign((tp.topic, tp.partition) for tp in partitions if tp.topic in known)

    signals: Any = app
    # Weak references by default: these two would be gone at once.
    signals.on_partitions_revoked.connect(revoked, weak=False)
    signals.on_partitions_assigned.connect(assigned, weak=False)
    flow.app = app
    return app


def build_http(
    workers: Workers,
    health: Health,
    metrics_of: Metrics,
    highwater: Callable[[str, int], int | None],
) -> Starlette:
    """/healthz, /readyz, /metrics and /v1/counts."""

    async def counts(_request: Request) -> JSONResponse:
        return JSONResponse(workers.counts(highwater))

    return Starlette(
        routes=[*health_routes(health, metrics_of.registry), Route("/v1/counts", counts)]
    )
