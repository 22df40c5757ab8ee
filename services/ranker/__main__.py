"""`python -m services.ranker`: settings, clients, app, run."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from prometheus_client import CollectorRegistry

from rankstream import metrics, topics
from rankstream.adapters.access import Access, access_of
from rankstream.adapters.access_rpc import KeyInterceptor
from rankstream.adapters.admission import Admission
from rankstream.adapters.apps import build_apps, serve_both
from rankstream.adapters.follow import Reader, follow
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.onnx_model import OnnxModel
from rankstream.adapters.redis_changes import RedisChanges
from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.adapters.rpc import start_server
from rankstream.adapters.run import run
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.following import followers
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval, read_sources
from rankstream.errors import DependencyUnavailable
from rankstream.ports import FeatureStore
from services.ranker.answers import Answers, RedisAnswers
from services.ranker.app import (
    SCOPES,
    SERVICE,
    Methods,
    methods,
    public_methods,
    routes,
    scope_of,
)
from services.ranker.breaker import Breaker
from services.ranker.canary import Canary
from services.ranker.candidates import InProcess, RetrievalClient
from services.ranker.core import Ranker
from services.ranker.enrichment import Enrichment
from services.ranker.kept_rows import KeptRows
from services.ranker.models import CHAMPION, Models, PopularItems, load_ratings
from services.ranker.policies import Policies
from services.ranker.settings import PREFIX, RankerSettings
from services.ranker.shadow import Shadow
from services.ranker.shards import Shards
from services.ranker.variants import Variants

EXPERIMENTS = "experiments"
FEATURES = "features"
RETRY_S = 0.5
# Nobody waits for the records of answers, and ten in one request cost the broker as much as one.
LOG_LINGER_MS = 20


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def await_store(store: FeatureStore, health: Health) -> None:
    """Hold readiness until the store has answered once; after that, answers degrade without it."""
    while True:
        try:
            await store.items(("",))
        except DependencyUnavailable as error:
            health.not_ready(FEATURES, str(error))
            await asyncio.sleep(RETRY_S)
        else:
            health.ready(FEATURES)
            await asyncio.Event().wait()


def retrieval_breaker(
    settings: RankerSettings, metrics_of: Metrics, name: str = "retrieval"
) -> Breaker:
    """What keeps answers from waiting while retrieval, or a shard of it, hangs."""
    return Breaker(
        name,
        timeout_s=settings.retrieval_timeout_ms / 1000,
        late_max=settings.retrieval_late_max,
        open_s=settings.retrieval_probe_ms / 1000,
        clock_s=time.monotonic,
        metrics_of=metrics_of,
    )


def redis_breaker(settings: RankerSettings, metrics_of: Metrics) -> Breaker:
    """The same while Redis hangs."""
    return Breaker(
        "redis",
        timeout_s=settings.features_timeout_ms / 1000,
        late_max=settings.features_late_max,
        open_s=settings.features_probe_ms / 1000,
        clock_s=time.monotonic,
        metrics_of=metrics_of,
    )


@dataclass(frozen=True)
class Clients:
    """What the ranker reaches over the network."""

    producer: EventProducer
    store: RedisFeatureStore
    kept: RedisAnswers

    @classmethod
    def of(cls, settings: RankerSettings, of_redis: Breaker) -> Clients:
        """Connects nothing yet."""
        timeout_s = settings.features_timeout_ms / 1000
        return cls(
            EventProducer(
                settings.kafka_url,
                client_id="ranker",
                delivery_timeout_s=settings.log_delivery_timeout_s,
                linger_ms=LOG_LINGER_MS,
            ),
            RedisFeatureStore(settings.redis_url, timeout_s=timeout_s),
            RedisAnswers(
                settings.redis_url,
                timeout_s=timeout_s,
                ttl_s=settings.answer_ttl_s,
                breaker=of_redis,
            ),
        )

    async def close(self, timeout_s: float) -> None:
        """Flush the log, as far as it answers in time, and close."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.producer.flush_and_close()
        await self.kept.close()
        await self.store.close()


def following(
    settings: RankerSettings, models: Models, variants: Variants, health: Health, m: Metrics
) -> Coroutine[Any, Any, None]:
    """Models and experiments as the log has them."""

    def reader(positions: dict[tuple[str, int], int]) -> Reader:
        names = [topics.MODELS.name, topics.EXPERIMENTS.name]
        return LogReader(settings.kafka_url, names, offsets=positions, client_id="ranker")

    async def fold(record: Record) -> None:
        of_models = record.topic == topics.MODELS.name
        await (models.follow(record) if of_models else variants.follow(record))
        # What a model is made of stays: the collector need not stop answers to look at it.
        gc.freeze()

    return follow(reader, fold, metrics_of=m, on_caught_up=lambda: health.ready(EXPERIMENTS))


def remote(settings: RankerSettings, metrics_of: Metrics) -> RetrievalClient | Shards:
    """Retrieval as a service, of one process or of several shards."""
    addresses = settings.retrieval_url.split(",")
    timeout_s = settings.retrieval_timeout_ms / 1000
    if len(addresses) > 1:
        return Shards(
            addresses,
            timeout_s=timeout_s,
            breaker_of=lambda name: retrieval_breaker(settings, metrics_of, name),
            metrics_of=metrics_of,
        )
    breaker = retrieval_breaker(settings, metrics_of)
    return RetrievalClient(settings.retrieval_url, timeout_s=timeout_s, breaker=breaker)


def candidates_of(
    settings: RankerSettings, health: Health, metrics_of: Metrics
) -> tuple[RetrievalClient | Shards | InProcess, list[Coroutine[Any, Any, None]]]:
    """Where candidates come from, and what keeps an index of this process up to date."""
    if not settings.retrieval_in_process:
        return remote(settings, metrics_of), []
    for part in (INDEX, ITEMS):
        health.not_ready(part, "starting")
    index = Retrieval(
        Limits(
            settings.artifacts,
            k_max=settings.candidates,
            sources=read_sources(settings.retrieval_sources, PREFIX + "RETRIEVAL_SOURCES"),
        ),
        load=Catalog.load,
        health=health,
        metrics_of=metrics_of,
    )
    kept_up = followers(
        index, settings.kafka_url, now_ms=now_ms(), health=health, metrics_of=metrics_of
    )
    return InProcess(index), kept_up


async def grpc_servers(
    settings: RankerSettings, every: Methods, health: Health, access: Access | None
) -> list[grpc.aio.Server]:
    """Servers at the public and the admin port; the admin one has all methods, and reflection."""
    ports = {
        "public": (f"{settings.host}:{settings.grpc_port}", public_methods(every)),
        "admin": (f"{settings.admin_host}:{settings.admin_grpc_port}", every),
    }
    servers = []
    for name, (address, known) in ports.items():
        server, port = await start_server(
            address,
            SERVICE,
            known,
            health,
            interceptors=[] if access is None else [KeyInterceptor(access, SCOPES)],
            reflects=name == "admin",
        )
        structlog.get_logger().info("grpc_listening", port=port, to=name)
        servers.append(server)
    return servers


async def main(settings: RankerSettings) -> None:
    registry = CollectorRegistry()
    health = Health(CHAMPION, EXPERIMENTS, FEATURES)
    metrics_of = Metrics(registry)
    of_redis = redis_breaker(settings, metrics_of)
    clients = Clients.of(settings, of_redis)
    retrieval, of_index = candidates_of(settings, health, metrics_of)
    answers = Answers(
        clients.producer, clients.kept, queue_max=settings.log_queue_max, metrics_of=metrics_of
    )
    variants = Variants()
    models = Models(
        load=OnnxModel.load,
        load_popular=PopularItems.load,
        load_ratings=load_ratings,
        artifacts=settings.artifacts,
        kept=settings.models_kept,
        metrics_of=metrics_of,
        on_champion=lambda: health.ready(CHAMPION),
    )
    store = KeptRows(
        clients.store,
        age_s=settings.rows_age_ms / 1000,
        rows_max=settings.rows_kept,
        clock_s=time.monotonic,
        metrics_of=metrics_of,
    )
    shadow = Shadow(settings, models, clients.producer, metrics_of=metrics_of)
    ranker = Ranker(
        settings,
        models=models,
        policies=Policies.load(settings),
        variants=variants,
        enrichment=Enrichment(
            store, timeout_s=settings.features_timeout_ms / 1000, breaker=of_redis
        ),
        retrieval=retrieval,
        answers=answers,
        canary=Canary(settings, models, metrics_of=metrics_of),
        shadow=shadow,
        health=health,
        metrics_of=metrics_of,
        now_ms=now_ms,
    )
    access = access_of(settings, metrics_of=metrics_of)
    admission = Admission(
        wait_s=settings.queue_wait_ms / 1000,
        clock_s=time.monotonic,
        running=lambda: ranker.in_flight,
        waited_s=metrics_of.histogram(metrics.RANKER_QUEUE_SECONDS).observe,
    )
    apps = build_apps(
        "rankstream ranker",
        routes(ranker, admission),
        health,
        registry,
        access=access,
        scope_of=scope_of,
    )
    servers = await grpc_servers(settings, methods(ranker, admission), health, access)

    async def stop() -> None:
        await asyncio.gather(*(server.stop(settings.shutdown_timeout_s) for server in servers))
        shadow.close()
        await answers.drain(settings.shutdown_timeout_s)
        await retrieval.close()
        await clients.close(settings.shutdown_timeout_s)

    log = following(settings, models, variants, health, metrics_of)
    changes = RedisChanges(settings.redis_url, (ITEM_STATE, CATEGORY_STATE))
    rows = [await_store(clients.store, health), changes.follow(store)]
    background = [log, *rows, *of_index, shadow.run()]
    await serve_both(apps, settings, on_stop=stop, background=background)


if __name__ == "__main__":
    sys.exit(run(main, RankerSettings, PREFIX, sys.argv[1:], os.environ))
