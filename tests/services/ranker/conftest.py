"""A ranker on fakes, behind both of its transports."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream.adapters.admission import Admission
from rankstream.adapters.apps import Apps, build_apps
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Variant
from rankstream.contracts.ids import id32, id64
from rankstream.contracts.manifest import Utility
from rankstream.contracts.policy import Policy
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from rankstream.features.rating_table import FACTORS, NO_RATINGS, RatingTable
from rankstream.pb import events_pb2, ranker_pb2_grpc
from rankstream.pb.ranker_pb2 import RankReply
from rankstream.ports import Model
from rankstream.testing import FakeModel
from services.ranker.answers import Answers
from services.ranker.app import SERVICE, methods, public_methods, routes, scope_of
from services.ranker.breaker import Breaker
from services.ranker.canary import Canary
from services.ranker.core import Ranker
from services.ranker.enrichment import Enrichment
from services.ranker.kept_rows import KeptRows
from services.ranker.models import Models, PopularItems
from services.ranker.policies import Policies
from services.ranker.requests import RankRequest, RecommendRequest
from services.ranker.settings import RankerSettings
from services.ranker.shadow import Shadow
from services.ranker.variants import Variants
from tests.services.ranker.fakes import (
    ITEM_IDS,
    NOW_MS,
    FakeKept,
    FakeLog,
    FakeRetrieval,
    SlowStore,
    category_row,
    context_row,
    item_row,
    user_row,
)

CHAMPION_WEIGHTS = np.zeros(spec.WIDTH, np.float32)
CHAMPION_WEIGHTS[spec.NAMES.index("item_log_impressions")] = 1.0


@dataclass
class Rig:
    """The ranker, its fakes, and a way in for each transport."""

    settings: RankerSettings
    health: Health = field(default_factory=lambda: Health("champion"))
    retrieval: FakeRetrieval = field(default_factory=FakeRetrieval)
    log: FakeLog = field(default_factory=FakeLog)
    kept: FakeKept = field(default_factory=FakeKept)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    loaded: dict[str, Model] = field(default_factory=dict)
    popular: dict[str, PopularItems] = field(default_factory=dict)
    ratings: dict[str, RatingTable] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    clock_s: float = 0.0

    def __post_init__(self) -> None:
        metrics_of = Metrics(self.registry)
        self.store = SlowStore(
            users={"u1": user_row(["i0", "i1"])},
            items={item: item_row(n) for n, item in enumerate(ITEM_IDS)},
            categories={"drama": category_row()},
            queries={"q": context_row(7)},
            locations={"home": context_row(3)},
        )
        self.variants = Variants()
        self.models = Models(
            load=self._load,
            load_popular=lambda uri, _sha256: self.popular[uri],
            load_ratings=lambda uri: self.ratings.get(uri, NO_RATINGS),
            artifacts="/artifacts",
            kept=3,
            metrics_of=metrics_of,
            on_champion=lambda: self.health.ready("champion"),
        )
        self.answers = Answers(
            self.log, self.kept, queue_max=self.settings.log_queue_max, metrics_of=metrics_of
        )
        self.shadow = Shadow(self.settings, self.models, self.log, metrics_of=metrics_of)
        self.ranker = Ranker(
            self.settings,
            models=self.models,
            policies=Policies(
                self.policies,
                epsilon=self.settings.explore_epsilon,
                salt=self.settings.policy_salt,
            ),
            variants=self.variants,
            enrichment=Enrichment(
                KeptRows(
                    self.store, age_s=0, rows_max=100, clock_s=lambda: 0.0, metrics_of=metrics_of
                ),
                timeout_s=self.settings.features_timeout_ms / 1000,
                breaker=Breaker(
                    "redis",
                    timeout_s=self.settings.features_timeout_ms / 1000,
                    late_max=self.settings.features_late_max,
                    open_s=self.settings.features_probe_ms / 1000,
                    clock_s=time.monotonic,
                    metrics_of=metrics_of,
                ),
            ),
            retrieval=self.retrieval,
            answers=self.answers,
            canary=Canary(
                self.settings, self.models, metrics_of=metrics_of, clock_s=lambda: self.clock_s
            ),
            shadow=self.shadow,
            health=self.health,
            metrics_of=metrics_of,
            now_ms=lambda: NOW_MS,
        )

    def _load(self, uri: str, _sha256: str) -> Model:
        if uri not in self.loaded:
            raise InvalidArtifact(f"invalid_artifact: {uri} is not there.")
        return self.loaded[uri]

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"rankstream_{name}", labels) or 0.0

    async def point(self, key: str, model_id: str) -> None:
        pointer = events_pb2.ModelPointer(uri=f"/{model_id}", sha256=model_id, model_id=model_id)
        await self.models.follow(
            Record("models", 0, 0, 0, key.encode(), pointer.SerializeToString())
        )

    async def serve_model(
        self,
        alias: str,
        model_id: str,
        sign: float = 1.0,
        *,
        utility: Utility | None = None,
        purchase_sign: float = -1.0,
    ) -> None:
        self.loaded[f"/{model_id}"] = FakeModel(
            CHAMPION_WEIGHTS * sign,
            model_id=model_id,
            purchase_weights=None if utility is None else CHAMPION_WEIGHTS * purchase_sign,
            utility=utility,
        )
        await self.point(f"ranker/{alias}", model_id)

    async def know_ratings(self) -> RatingTable:
        """The champion index has a table in which the last two items speak for one another."""
        item = sorted(id32(id64(name)) for name in ITEM_IDS)
        places = [item.index(id32(id64(name))) for name in ITEM_IDS[-2:]]
        rows, weight = np.full((len(item), 1), -1, np.int32), np.zeros((len(item), 1), np.float32)
        rows[places, 0], weight[places] = places[::-1], 0.5
        table = RatingTable(
            "index-0",
            np.array(item, np.uint32),
            3.5,
            np.zeros(len(item), np.float32),
            rows,
            weight,
            np.ones((len(item), FACTORS), np.float32),
        )
        self.ratings["/index-0"] = table
        await self.know_popular()
        return table

    async def know_popular(self) -> None:
        names = tuple(reversed(ITEM_IDS))
        hashes = np.array([id64(name) for name in names], np.uint64)
        self.popular["/index-0"] = PopularItems("index-0", names, hashes)
        await self.point("retrieval/champion", "index-0")

    async def define(self, **fields: Any) -> Experiment:
        experiment = an_experiment(**fields)
        await self.variants.follow(
            Record("experiments", 0, 0, 0, experiment.id.encode(), encode_experiment(experiment))
        )
        return experiment

    async def records(self, topic: str) -> list[bytes]:
        await self.answers.drain(1.0)
        return [value for name, _, value in self.log.records if name == topic]

    async def slates(self) -> list[events_pb2.ServedSlate]:
        return [events_pb2.ServedSlate.FromString(r) for r in await self.records("served")]

    async def exposures(self) -> list[events_pb2.Exposure]:
        return [events_pb2.Exposure.FromString(r) for r in await self.records("exposures")]


def an_experiment(**fields: Any) -> Experiment:
    """Everybody gets `new`, which the challenger serves; running since before NOW_MS."""
    return Experiment.model_validate(
        {
            "id": "exp-1",
            "salt": "s",
            "layer": "ranker",
            "variants": (
                Variant(name="control", weight_bp=1, model="champion"),
                Variant(name="new", weight_bp=9_999, model="challenger"),
            ),
            "traffic_bp": 10_000,
            "status": "running",
            "start_ms": NOW_MS - 1,
            "control": "control",
            "primary_metric": "ctr",
            **fields,
        }
    )


@pytest.fixture
def settings() -> RankerSettings:
    """No exploration, so that order is plain; short deadlines."""
    return RankerSettings(
        explore_epsilon=0.0, features_timeout_ms=20, candidates=30, n_max=20, items_max=50
    )


@pytest.fixture
async def cold(settings: RankerSettings) -> AsyncIterator[Rig]:
    """No model yet."""
    rig = Rig(settings)
    yield rig
    await rig.answers.drain(1.0)


@pytest.fixture
async def rig(cold: Rig) -> Rig:
    """Ready: a champion that prefers items with many impressions."""
    await cold.serve_model("champion", "m1")
    return cold


def an_admission(running: Callable[[], int] = lambda: 1) -> Admission:
    """A queue in which requests may wait for long, and do unless `running` says that none is."""
    return Admission(
        wait_s=60.0, clock_s=time.monotonic, running=running, waited_s=lambda _wait_s: None
    )


def apps_of(rig: Rig, admission: Admission) -> Apps:
    """Both HTTP ports, without keys."""
    return build_apps(
        "ranker",
        routes(rig.ranker, admission),
        rig.health,
        rig.registry,
        access=None,
        scope_of=scope_of,
    )


@dataclass
class Channels:
    """Both ways in, at the admin ports; `public` and `public_http` at the others."""

    http: httpx.AsyncClient
    stub: ranker_pb2_grpc.RankerStub
    channel: grpc.aio.Channel
    public_http: httpx.AsyncClient
    public: grpc.aio.Channel


@pytest.fixture
async def channels(rig: Rig) -> AsyncIterator[Channels]:
    apps, every = apps_of(rig, an_admission()), methods(rig.ranker, an_admission())
    admin, port = await start_server("127.0.0.1:0", SERVICE, every, rig.health)
    public, public_port = await start_server(
        "127.0.0.1:0", SERVICE, public_methods(every), rig.health, reflects=False
    )
    async with (
        client_of(apps.admin) as http,
        client_of(apps.public) as public_http,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{public_port}") as public_channel,
    ):
        make_stub: Any = ranker_pb2_grpc.RankerStub  # generated without types
        yield Channels(http, make_stub(channel), channel, public_http, public_channel)
    await admin.stop(0)
    await public.stop(0)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    """A client that calls an app without a network."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://ranker")


async def recommend(rig: Rig, user_id: str = "u1", **fields: Any) -> RankReply:
    request = RecommendRequest(user_id=user_id, **fields)
    return await rig.ranker.recommend(request, transport="grpc")


async def rank(rig: Rig, item_ids: list[str], **fields: Any) -> RankReply:
    request = RankRequest(user_id="u1", item_ids=item_ids, **fields)
    return await rig.ranker.rank(request, transport="grpc")
