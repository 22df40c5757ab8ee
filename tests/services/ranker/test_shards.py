"""The ranker's client of several shards, over gRPC, with a part of one artefact in each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server, unary
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.contracts.filter import ItemFilter, Place
from rankstream.contracts.ids import id64
from rankstream.contracts.shard import WHOLE, Shard
from rankstream.contracts.sources import Source, Sources
from rankstream.errors import InvalidRequest
from rankstream.pb import events_pb2
from rankstream.pb import retrieval_pb2 as pb
from services.ranker.__main__ import remote
from services.ranker.candidates import RetrievalClient, RetrievalFailed, Retrieved, request_of
from services.ranker.settings import RankerSettings
from services.ranker.shards import Shards
from tests.serving_artifacts import pointer, write_index

ITEM_IDS = [f"i{n}" for n in range(60)]
VECTORS = np.random.default_rng(1).integers(-3, 4, (60, 4)).astype(np.float32)
LIKES = np.arange(60, dtype=np.float32)
T_MS = 1_800_000_000_000
TIMEOUT_S = 30.0
SERVICE = "rankstream.v1.Retrieval"
HERE = Place(latitude=48.0, longitude=11.0)
SOURCES = Sources(
    sources=(
        Source(name="towers"),
        Source(name="fresh", min_share=0.1),
        Source(name="near", min_share=0.1),
        Source(name="trending", min_share=0.1),
    ),
    fallbacks=("popular", "fresh"),
)


def a_retrieval(shard: Shard, sources: Sources = SOURCES) -> Retrieval:
    return Retrieval(
        Limits("artifacts", sources=sources, shard=shard),
        load=Catalog.load,
        health=Health(INDEX, ITEMS),
        metrics_of=Metrics(CollectorRegistry()),
    )


def an_artifact(folder: Path, name: str = "index-1") -> Artifact:
    return write_index(folder, name, ITEM_IDS, VECTORS, LIKES)


async def point_to(retrieval: Retrieval, artifact: Artifact) -> None:
    value = pointer("retrieval", "champion", artifact)
    await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))


async def told(retrieval: Retrieval) -> Retrieval:
    """The same that all processes read: items that move, come and go, and clicks."""
    for number, item_id in enumerate([*ITEM_IDS[:20], "new-1"]):
        item = events_pb2.Item(item_id=item_id, updated_ms=T_MS, withdrawn=number % 7 == 0)
        item.attributes.update({"latitude": 48.0 + number / 1_000, "longitude": 11.0})
        item.category = "even" if number % 2 == 0 else "odd"
        value = item.SerializeToString()
        await retrieval.follow_item(Record("items", 0, 0, T_MS, item_id.encode(), value))
    clicked = [item_id for n, item_id in enumerate(ITEM_IDS[30:40]) for _ in range(n // 2)]
    batch = events_pb2.LabelBatch(
        source_offset=len(clicked) - 1,
        strings=clicked,
        item_id=range(len(clicked)),
        impression_time_ms=[T_MS] * len(clicked),
        old_clicked=[0] * len(clicked),
        new_clicked=[1] * len(clicked),
    )
    await retrieval.follow_label(Record("labels", 0, 0, T_MS, b"", batch.SerializeToString()))
    retrieval.rank_trending()
    return retrieval


Answer = Callable[[pb.RetrieveRequest], Awaitable[pb.ShardReply]]


@dataclass
class System:
    """Shards behind gRPC servers, and one process that holds all items."""

    whole: Retrieval
    shards: list[Retrieval]
    servers: list[grpc.aio.Server] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def serve(self, answer: Answer) -> None:
        method = unary(pb.RetrieveRequest, answer, on_malformed=lambda _: None)
        health = Health()
        server, port = await start_server("127.0.0.1:0", SERVICE, {"RetrieveShard": method}, health)
        self.servers.append(server)
        self.addresses.append(f"127.0.0.1:{port}")

    def client(self, timeout_s: float = TIMEOUT_S) -> Shards:
        settings = RankerSettings(
            retrieval_url=",".join(self.addresses), retrieval_timeout_ms=timeout_s * 1_000
        )
        client = remote(settings, Metrics(self.registry))
        assert isinstance(client, Shards)
        return client

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"rankstream_{name}", labels) or 0.0


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    artifact = an_artifact(tmp_path)
    system = System(a_retrieval(WHOLE), [a_retrieval(Shard(number, 3)) for number in range(3)])
    for retrieval in (system.whole, *system.shards):
        await point_to(retrieval, artifact)
        await told(retrieval)
    for shard in system.shards:
        await system.serve(shard.retrieve_shard)
    yield system
    for server in system.servers:
        await server.stop(0)


def asking(history: list[str], k: int, **more: object) -> pb.RetrieveRequest:
    hashes = [id64(item) for item in history]
    request = pb.RetrieveRequest(k=k, recent_items=hashes, exclude_items=hashes)
    request.MergeFrom(pb.RetrieveRequest(**more))  # type: ignore[arg-type]  # fields, by name
    return request


async def ask(
    client: Shards, history: list[str], k: int, wanted: ItemFilter | None = None
) -> Retrieved:
    recent = np.array([id64(item) for item in history], np.uint64)
    return await client.retrieve(request_of("r", recent, k, ["i50"], wanted, HERE))


@pytest.mark.parametrize("history", [["i3", "i21", "unknown"], ["unknown"], []])
@pytest.mark.parametrize(
    "wanted", [None, ItemFilter(categories=["odd"]), ItemFilter(item_ids=["i4", "i5", "i45"])]
)
async def test_three_shards_answer_as_one_process(
    system: System, history: list[str], wanted: ItemFilter | None
) -> None:
    client = system.client()
    request = asking(history, 30, exclude_item_ids=["i50"])
    request.place.latitude, request.place.longitude = HERE.latitude, HERE.longitude
    if wanted is not None:
        request.filter.categories.extend(wanted.categories)
        request.filter.item_ids.extend(wanted.item_ids)

    reply = await ask(client, history, 30, wanted)

    expected = Retrieved.of(*system.whole.candidates(request))
    assert reply == expected
    assert system.count("retrieval_candidates_total", source="near") == sum(
        bits >> 6 & 1 for bits in expected.named_by
    )
    await client.close()


async def test_a_shard_that_is_down_is_named_and_the_others_answer(system: System) -> None:
    client = system.client()
    await system.servers[1].stop(0)

    reply = await ask(client, ["i3"], 60)

    held = {item_id for item_id in [*ITEM_IDS, "new-1"] if id64(item_id) % 3 != 1}
    assert list(reply.degraded) == ["retrieval_partial"]
    assert set(reply.item_ids) <= held
    assert len(reply.item_ids) > 20
    failures = {"shard": "1", "reason": "retrieval_unavailable"}
    assert system.count("ranker_shard_failures_total", **failures) == 1
    await client.close()


async def test_a_shard_that_hangs_costs_one_deadline_and_then_nothing(system: System) -> None:
    async def hang(_request: pb.RetrieveRequest) -> pb.ShardReply:
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    await system.serve(hang)
    system.addresses[2] = system.addresses.pop()
    client = system.client(timeout_s=1.0)

    replies = [await ask(client, ["i3"], 10) for _ in range(8)]

    assert {tuple(reply.degraded) for reply in replies} == {("retrieval_partial",)}
    # Five late calls in a row open that shard's circuit, and no other's.
    reasons = {
        reason: system.count("ranker_shard_failures_total", shard="2", reason=reason)
        for reason in ("retrieval_timeout", "retrieval_circuit_open")
    }
    assert reasons == {"retrieval_timeout": 5, "retrieval_circuit_open": 3}
    opened = [system.count("ranker_circuit_open", dependency=f"retrieval-{n}") for n in range(3)]
    assert opened == [0, 0, 1]
    await client.close()


async def test_without_any_shard_retrieval_has_failed(system: System) -> None:
    client = system.client()
    for server in system.servers:
        await server.stop(0)

    with pytest.raises(RetrievalFailed) as failed:
        await ask(client, ["i3"], 10)

    assert failed.value.reason == "retrieval_unavailable"
    await client.close()


async def test_shards_in_another_order_or_number_are_refused(system: System) -> None:
    system.addresses[:2] = reversed(system.addresses[:2])
    client = system.client()

    swapped = await ask(client, ["i3"], 10)
    system.addresses.pop()
    system.registry = CollectorRegistry()
    fewer = system.client()
    with pytest.raises(RetrievalFailed, match="shard 0 of 2 says that it is 1 of 3") as failed:
        await ask(fewer, ["i3"], 10)

    assert list(swapped.degraded) == ["retrieval_partial"]
    assert {id64(item_id) % 3 for item_id in swapped.item_ids} == {2}
    assert failed.value.reason == "retrieval_refused"
    await client.close()
    await fewer.close()


async def test_a_shard_with_other_sources_is_left_out_and_named(
    system: System, tmp_path: Path
) -> None:
    odd = a_retrieval(Shard(1, 3), Sources(sources=(Source(name="towers", max_share=0.5),)))
    await point_to(odd, an_artifact(tmp_path, "index-odd"))
    await told(odd)
    await system.serve(odd.retrieve_shard)
    system.addresses[1] = system.addresses.pop()
    client = system.client()

    reply = await ask(client, ["i3"], 60)

    assert list(reply.degraded) == ["retrieval_partial"]
    assert {id64(item_id) % 3 for item_id in reply.item_ids} == {0, 2}
    failures = {"shard": "1", "reason": "retrieval_sources_differ"}
    assert system.count("ranker_shard_failures_total", **failures) == 1
    await client.close()


async def test_during_a_swap_the_answer_names_both_indexes(system: System, tmp_path: Path) -> None:
    client = system.client()

    await point_to(system.shards[1], an_artifact(tmp_path, "index-2"))
    between = await ask(client, ["i3"], 10)
    for shard in (system.shards[0], system.shards[2]):
        await point_to(shard, an_artifact(tmp_path, "index-2"))
    after = await ask(client, ["i3"], 10)

    assert (between.index_id, after.index_id) == ("index-1+index-2", "index-2")
    assert (list(between.degraded), len(between.item_ids)) == ([], 10)
    await client.close()


async def test_a_shard_alone_does_not_pass_for_all_items(system: System) -> None:
    with pytest.raises(InvalidRequest, match="this is shard 1 of 3"):
        await system.shards[1].retrieve(asking(["i3"], 5))


async def test_one_address_is_one_process() -> None:
    client = remote(RankerSettings(), Metrics(CollectorRegistry()))

    assert isinstance(client, RetrievalClient)
    await client.close()
