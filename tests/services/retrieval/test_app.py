"""The retrieval service over gRPC, with artefacts of the real formats and records made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidArtifact
from rankstream.pb import events_pb2, filter_pb2, retrieval_pb2, retrieval_pb2_grpc
from services.retrieval.app import SERVICE, methods
from services.retrieval.deadlines import Deadlines
from tests.serving_artifacts import pointer, write_index

ITEM_IDS = [f"i{n}" for n in range(30)]
VECTORS = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
T_MS = 1_800_000_000_000
TIMEOUT_S = 10.0
SLOW = 600  # answers, until 2.5 s each are thought to be usual
POPULARITY = np.arange(30, dtype=np.float32)  # i29 is the most popular


class Clock:
    """Moves on by `step_s` whenever it is read: an answer takes as much."""

    now_s = 0.0
    step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@dataclass
class Service:
    retrieval: Retrieval
    health: Health
    registry: CollectorRegistry
    stub: retrieval_pb2_grpc.RetrievalStub
    channel: grpc.aio.Channel
    folder: Path
    clock: Clock

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"rankstream_{name}", labels) or 0.0

    def artifact(self, index_id: str = "index-1", items: int = 30) -> Artifact:
        return write_index(
            self.folder, index_id, ITEM_IDS[:items], VECTORS[:items], POPULARITY[:items]
        )

    async def point_to(self, artifact: Artifact) -> None:
        await self.retrieval.follow_model(
            record("models", b"retrieval/champion", pointer("retrieval", "champion", artifact))
        )

    async def say(self, item_id: str, *, withdrawn: bool, updated_ms: int = T_MS) -> None:
        item = events_pb2.Item(item_id=item_id, withdrawn=withdrawn, updated_ms=updated_ms)
        value = item.SerializeToString()
        await self.retrieval.follow_item(record("items", item_id.encode(), value))


def record(topic: str, key: bytes, value: bytes | None, time_ms: int = T_MS) -> Record:
    return Record(topic, 0, 0, time_ms, key, value)


def asking(recent: Iterable[str] = (), k: int = 5, **fields: Any) -> retrieval_pb2.RetrieveRequest:
    return retrieval_pb2.RetrieveRequest(
        request_id="r", recent_items=[id64(item) for item in recent], k=k, **fields
    )


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    registry = CollectorRegistry()
    health = Health(INDEX, ITEMS)
    retrieval = Retrieval(
        Limits("artifacts", k_max=100, history_max=10, exclude_max=20),
        load=Catalog.load,
        health=health,
        metrics_of=Metrics(registry),
    )
    clock = Clock()
    every = methods(retrieval, Deadlines(clock))
    server, port = await start_server("127.0.0.1:0", SERVICE, every, health)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        make_stub: Any = retrieval_pb2_grpc.RetrievalStub  # generated without types
        stub = make_stub(channel)
        yield Service(retrieval, health, registry, stub, channel, tmp_path, clock)
    await server.stop(0)


@pytest.fixture
async def loaded(service: Service) -> Service:
    await service.point_to(service.artifact())
    return service


async def test_a_history_gets_its_nearest_items(loaded: Service) -> None:
    reply = await loaded.stub.Retrieve(asking(["i3", "i7"], k=5))

    nearest = np.argsort(-(VECTORS @ (VECTORS[3] + VECTORS[7])))[:5]
    assert list(reply.item_id) == [ITEM_IDS[row] for row in nearest]
    assert list(reply.similarity) == sorted(reply.similarity, reverse=True)
    assert (reply.source, reply.index_id, list(reply.degraded)) == ("towers", "index-1", [])


@pytest.mark.parametrize(
    ("recent", "reason"), [([], "no_history"), (["never-heard-of"], "unknown_history")]
)
async def test_an_unknown_user_gets_the_popular_items_and_the_reason(
    loaded: Service, recent: list[str], reason: str
) -> None:
    reply = await loaded.stub.Retrieve(asking(recent, k=3))

    assert list(reply.item_id) == ["i29", "i28", "i27"]
    assert (reply.source, list(reply.degraded)) == ("popular", [reason])
    assert loaded.count("retrieval_degraded_total", reason=reason) == 1


@pytest.mark.parametrize("recent", [["i3"], []])
async def test_exclusions_by_id_and_by_hash_leave_k_others(
    loaded: Service, recent: list[str]
) -> None:
    before = await loaded.stub.Retrieve(asking(recent, k=8))
    excluded = list(before.item_id[:4])

    after = await loaded.stub.Retrieve(
        asking(
            recent,
            k=8,
            exclude_item_ids=[*excluded[:2], "unknown"],
            exclude_items=[id64(item) for item in excluded[2:]],
        )
    )

    assert len(after.item_id) == 8
    assert list(after.item_id[:4]) == list(before.item_id[4:])


async def test_a_withdrawn_item_does_not_come_back_until_it_is_offered_again(
    loaded: Service,
) -> None:
    await loaded.say("i29", withdrawn=True)
    without = await loaded.stub.Retrieve(asking(k=100))
    withdrawn = loaded.count("retrieval_items", state="withdrawn")
    await loaded.say("i29", withdrawn=False)
    again = await loaded.stub.Retrieve(asking(k=100))

    assert "i29" not in without.item_id
    assert (len(without.item_id), len(again.item_id), withdrawn) == (29, 30, 1)


async def test_items_withdrawn_before_the_index_came_and_deleted_ones_stay_away(
    service: Service,
) -> None:
    await service.say("i1", withdrawn=True)
    await service.retrieval.follow_item(record("items", b"i2", None))
    await service.point_to(service.artifact())

    reply = await service.stub.Retrieve(asking(["i5"], k=100))

    assert len(reply.item_id) == 28
    assert not {"i1", "i2"} & set(reply.item_id)


async def test_a_new_pointer_swaps_the_index(loaded: Service) -> None:
    await loaded.point_to(loaded.artifact("index-2", items=10))

    reply = await loaded.stub.Retrieve(asking(["i3"], k=100))

    assert (reply.index_id, len(reply.item_id)) == ("index-2", 10)
    labels = {"role": "retrieval", "alias": "champion"}
    assert loaded.count("model_info", **labels, model_id="index-2") == 1
    assert loaded.count("model_info", **labels, model_id="index-1") == 0


@pytest.mark.parametrize(
    "broken", ["items.npz", "index.faiss", "query_tower.onnx", "manifest.json"]
)
async def test_an_altered_artefact_is_refused_and_the_one_in_force_stays(
    loaded: Service, broken: str
) -> None:
    artifact = loaded.artifact("index-2")
    path = Path(artifact.uri) / broken
    path.write_bytes(path.read_bytes()[:-3])

    with pytest.raises(InvalidArtifact, match=broken.replace(".", r"\.")):
        await loaded.point_to(artifact)

    assert (await loaded.stub.Retrieve(asking(["i3"]))).index_id == "index-1"


async def test_records_that_are_none_of_ours_are_refused_or_passed_over(loaded: Service) -> None:
    with pytest.raises(InvalidArtifact, match="are not a ModelPointer"):
        await loaded.retrieval.follow_model(record("models", b"retrieval/champion", b"\xff"))
    await loaded.retrieval.follow_model(record("models", b"ranker/champion", b"\xff"))
    await loaded.retrieval.follow_model(record("models", b"retrieval/champion", None))

    assert (await loaded.stub.Retrieve(asking(["i3"]))).index_id == "index-1"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (asking(k=0), r"k is 0 \(limit 1\.\.100\)"),
        (asking(k=-1), "k is -1"),
        (asking(k=100_000), "k is 100000"),
        (asking([f"x{n}" for n in range(11)]), r"recent_items is 11 \(limit 0\.\.10\)"),
        (asking(exclude_item_ids=["x"] * 21), r"exclusions is 21 \(limit 0\.\.20\)"),
    ],
)
async def test_a_request_outside_the_limits_is_refused_by_name(
    loaded: Service, request_: retrieval_pb2.RetrieveRequest, message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as refused:
        await loaded.stub.Retrieve(request_)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert ("error-code", "invalid_request") in tuple(refused.value.trailing_metadata() or ())
    assert loaded.count("retrieval_requests_total", status="invalid_request") == 1


async def test_a_filter_leaves_what_passes_whoever_asks(loaded: Service) -> None:
    for number, name in enumerate(ITEM_IDS):
        place = {"latitude": 48.0 + number / 100, "longitude": 11.0}
        item = events_pb2.Item(
            item_id=name,
            category="even" if number % 2 == 0 else "odd",
            attributes={"price": float(number), **place},
            withdrawn=number == 4,
            updated_ms=T_MS,
        )
        await loaded.retrieval.follow_item(record("items", name.encode(), item.SerializeToString()))
    wanted = filter_pb2.ItemFilter(
        categories=["even", "nobody has it"],
        price=filter_pb2.PriceRange(min=1.0, max=20.0),
        near=filter_pb2.GeoRadius(latitude=48.0, longitude=11.0, radius_km=10.1),
    )

    for recent in (["i3"], []):
        reply = await loaded.stub.Retrieve(asking(recent, k=20, filter=wanted))
        without = await loaded.stub.Retrieve(
            asking(recent, k=20, filter=wanted, exclude_item_ids=["i6"])
        )
        listed = await loaded.stub.Retrieve(
            asking(recent, k=20, filter=filter_pb2.ItemFilter(item_ids=["i9", "i4", "unknown"]))
        )

        # 0.01 degrees of latitude are 1.11 km; i4 is withdrawn.
        assert set(reply.item_id) == {"i2", "i6", "i8"}
        assert set(without.item_id) == {"i2", "i8"}
        assert list(listed.item_id) == ["i9"]


async def test_an_item_changes_its_category_and_its_place_without_a_new_index(
    loaded: Service,
) -> None:
    wanted = filter_pb2.ItemFilter(
        categories=["tea"],
        near=filter_pb2.GeoRadius(latitude=-33.9, longitude=151.2, radius_km=5.0),
    )
    before = await loaded.stub.Retrieve(asking(["i3"], filter=wanted))
    item = events_pb2.Item(
        item_id="i7",
        category="tea",
        attributes={"latitude": -33.9, "longitude": 151.21},
        updated_ms=T_MS,
    )
    await loaded.retrieval.follow_item(record("items", b"i7", item.SerializeToString()))

    after = await loaded.stub.Retrieve(asking(["i3"], filter=wanted))

    assert (list(before.item_id), list(after.item_id)) == ([], ["i7"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (filter_pb2.ItemFilter(near=filter_pb2.GeoRadius(radius_km=-1)), r"near\.radius_km"),
        (filter_pb2.ItemFilter(price=filter_pb2.PriceRange()), "needs min or max"),
        (filter_pb2.ItemFilter(price=filter_pb2.PriceRange(min=float("nan"))), r"price\.min"),
        (filter_pb2.ItemFilter(item_ids=["i1"] * 1_001), r"filter\.item_ids"),
    ],
)
async def test_a_filter_outside_its_limits_is_refused_by_name(
    loaded: Service, wanted: filter_pb2.ItemFilter, message: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=message) as refused:
        await loaded.stub.Retrieve(asking(["i3"], filter=wanted))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_request_are_refused_by_name(loaded: Service) -> None:
    call: Any = loaded.channel.unary_unary(f"/{SERVICE}/Retrieve")

    with pytest.raises(grpc.aio.AioRpcError, match=r"are not a rankstream\.v1") as refused:
        await call(b"\xff\xff\xff")

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_before_the_first_index_it_is_not_ready(service: Service) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="not_ready") as refused:
        await service.stub.Retrieve(asking())

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert service.health.reasons().keys() == {INDEX, ITEMS}


async def test_grpc_health_follows_readiness_and_reflection_lists_the_service(
    service: Service,
) -> None:
    check = health_pb2_grpc.HealthStub(service.channel).Check
    asked = health_pb2.HealthCheckRequest(service=SERVICE)

    before = await check(asked)
    await service.point_to(service.artifact())
    service.health.ready(ITEMS)
    after = await check(asked)
    with pytest.raises(grpc.aio.AioRpcError, match="no service 'nobody'"):
        await check(health_pb2.HealthCheckRequest(service="nobody"))
    listed = reflection_pb2_grpc.ServerReflectionStub(service.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    names = {each.name async for reply in listed for each in reply.list_services_response.service}

    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after.status == health_pb2.HealthCheckResponse.SERVING
    assert SERVICE in names


async def test_a_call_without_time_for_an_answer_is_refused_unanswered_and_counted(
    loaded: Service,
) -> None:
    loaded.clock.step_s = 100.0
    for _ in range(SLOW):
        await loaded.stub.Retrieve(asking(["i3"]))

    with pytest.raises(grpc.aio.AioRpcError, match=r"are left of the deadline") as refused:
        await loaded.stub.Retrieve(asking(["i3"]), timeout=TIMEOUT_S)
    patient = await loaded.stub.Retrieve(asking(["i3"]))

    told = dict(tuple(refused.value.trailing_metadata() or ()))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (told["error-code"], told["retry-after"]) == ("overloaded", "1")
    assert loaded.count("retrieval_requests_total", status="overloaded") == 1
    assert loaded.count("retrieval_requests_total", status="ok") == SLOW + 1
    assert len(patient.item_id) == 5
