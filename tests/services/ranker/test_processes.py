"""The ranker and retrieval as processes, on the real Kafka and Redis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import redis

from deploy.local.services import Ports
from rankstream import topics
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.adapters.redis_rows import ITEM_STATE, USER_STATE, RowEncoder
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.sources import NAMES, Source, Sources
from rankstream.features import spec
from rankstream.pb import filter_pb2, ranker_pb2_grpc
from rankstream.pb import ranker_pb2 as pb
from rankstream.pb.events_pb2 import Item, LabelBatch, ServedSlate, ShadowSlate
from rankstream.pb.filter_pb2 import Place
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, an_experiment
from tests.services.ranker.fakes import item_row, user_row
from tests.serving_artifacts import pointer, write_index, write_ranker

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
ITEM_IDS = [f"i{n}" for n in range(60)]
WAIT_S = 30.0


@dataclass
class System:
    kafka: str
    ports: Ports
    environ: dict[str, dict[str, str]]
    producer: EventProducer
    folder: Path
    stub: Any
    admin: Any
    http: httpx.AsyncClient
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"services.{name}"],
            cwd=ROOT,
            env={**os.environ, **self.environ[name]},
            stdout=subprocess.DEVNULL,
        )

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(WAIT_S)

    async def publish(self, role: str, alias: str, artifact: Any) -> None:
        await self.producer.send(
            topics.MODELS.name, pointer(role, alias, artifact), key=f"{role}/{alias}".encode()
        )

    async def recommend(self, **fields: Any) -> pb.RankReply:
        reply: pb.RankReply = await self.stub.Recommend(pb.RecommendRequest(user_id="u1", **fields))
        return reply

    async def until(self, holds: Callable[[pb.RankReply], bool]) -> pb.RankReply:
        """The first reply that holds; every one before it must be an answer too."""
        async with asyncio.timeout(WAIT_S):
            while not holds(reply := await self.recommend()):
                await asyncio.sleep(0.02)
        return reply

    async def ready(self, port: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    if (await self.http.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)


def fill(url: str) -> None:
    users, items = RowEncoder(USER_STATE), RowEncoder(ITEM_STATE)
    commands = [users.hset("u1", user_row(["i1", "i2"]).tobytes())]
    commands += [items.hset(item, item_row(n).tobytes()) for n, item in enumerate(ITEM_IDS)]
    with redis.Redis.from_url(url) as client:
        connection = client.connection_pool.get_connection()
        connection.send_packed_command(commands)
        for _ in commands:
            connection.read_response()
        client.connection_pool.release(connection)


@pytest.fixture
async def system(kafka_topics: str, clean_redis: str, tmp_path: Path) -> AsyncIterator[System]:
    fill(clean_redis)
    ports = Ports.free()
    vectors = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    environ = {
        "retrieval": {
            "RETRIEVAL_KAFKA_URL": kafka_topics,
            "RETRIEVAL_PORT": str(ports.retrieval),
            "RETRIEVAL_GRPC_PORT": str(ports.retrieval_grpc),
        },
        "ranker": {
            "RANKER_KAFKA_URL": kafka_topics,
            "RANKER_REDIS_URL": clean_redis,
            "RANKER_PORT": str(ports.ranker),
            "RANKER_GRPC_PORT": str(ports.ranker_grpc),
            "RANKER_ADMIN_PORT": str(ports.ranker_admin),
            "RANKER_ADMIN_GRPC_PORT": str(ports.ranker_admin_grpc),
            "RANKER_RETRIEVAL_URL": f"127.0.0.1:{ports.retrieval_grpc}",
            "RANKER_FEATURES_TIMEOUT_MS": "2000",
            "RANKER_RETRIEVAL_TIMEOUT_MS": "2000",
        },
    }
    make_stub: Any = ranker_pb2_grpc.RankerStub  # generated without types
    async with (
        httpx.AsyncClient() as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{ports.ranker_grpc}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{ports.ranker_admin_grpc}") as admin,
    ):
        stubs = make_stub(channel), make_stub(admin)
        producer = EventProducer(kafka_topics)
        running = System(kafka_topics, ports, environ, producer, tmp_path, *stubs, http)
        popularity = np.arange(60, dtype=np.float32)
        index = write_index(tmp_path / "retrieval", "index-1", ITEM_IDS, vectors, popularity)
        await running.publish("retrieval", "champion", index)
        await running.publish(
            "ranker", "champion", write_ranker(tmp_path / "ranker", "m1", CHAMPION_WEIGHTS)
        )
        try:
            running.start("retrieval")
            running.start("ranker")
            await running.ready(ports.retrieval)
            await running.ready(ports.ranker)
            yield running
        finally:
            for name in list(running.processes):
                running.stop(name, signal.SIGKILL)
            await producer.flush_and_close()


async def records(system: System, topic: topics.Topic) -> list[Record]:
    reader = LogReader(system.kafka, [topic.name])
    found = []
    while not reader.caught_up:
        found += await reader.poll(1_000, 0.2)
    await reader.close()
    return found


async def slates(system: System) -> list[ServedSlate]:
    found = await records(system, topics.SERVED)
    return [ServedSlate.FromString(record.value or b"") for record in found]


async def test_every_answer_is_in_the_log_after_a_clean_stop(system: System) -> None:
    replies = await asyncio.gather(*(system.recommend(n=5) for _ in range(40)))

    code = system.stop("ranker")

    logged = {slate.request_id: list(slate.item_id) for slate in await slates(system)}
    assert code == 0
    assert logged == {reply.request_id: list(reply.item_id) for reply in replies}
    assert not any(reply.degraded for reply in replies)
    assert all(not {"i1", "i2"} & set(reply.item_id) for reply in replies)


async def test_models_experiments_and_withdrawals_take_effect_without_a_failed_request(
    system: System,
) -> None:
    worst = write_ranker(system.folder / "ranker", "m2", -CHAMPION_WEIGHTS)
    broken = write_ranker(system.folder / "ranker", "m3", CHAMPION_WEIGHTS)
    (Path(broken.uri) / "model.onnx").write_bytes(b"altered")

    await system.publish("ranker", "champion", broken)
    await system.publish("ranker", "challenger", worst)
    experiment = an_experiment()
    await system.producer.send(
        topics.EXPERIMENTS.name, encode_experiment(experiment), key=experiment.id.encode()
    )
    assigned = await system.until(lambda reply: reply.variant == "new")
    control = await system.recommend(variant_overrides={"exp-1": "control"})
    gone = Item(item_id="i7", withdrawn=True, updated_ms=1).SerializeToString()
    await system.producer.send(topics.ITEMS.name, gone, key=b"i7")
    without = await system.until(lambda reply: reply.candidates == 57)
    metrics = (await system.http.get(f"http://127.0.0.1:{system.ports.ranker_admin}/metrics")).text

    assert (assigned.model_id, control.model_id) == ("m2", "m1")
    assert "i7" not in without.item_id
    refused = 'rankstream_follow_refused_total{code="invalid_artifact",topic="models"} 1.0'
    assert refused in metrics


async def test_a_new_item_is_offered_and_a_withdrawn_one_is_not_within_five_seconds(
    system: System,
) -> None:
    teas = filter_pb2.ItemFilter(categories=["tea"])

    async def offered() -> list[str]:
        return list((await system.recommend(filter=teas, preview=True)).item_id)

    for time_ms, item_id, withdrawn, expected in (
        (1, "new-tea", False, ["new-tea"]),
        (1, "i9", False, ["i9", "new-tea"]),
        (2, "new-tea", True, ["i9"]),
        (2, "i9", True, []),
    ):
        item = Item(item_id=item_id, category="tea", withdrawn=withdrawn, updated_ms=time_ms)
        await system.producer.send(
            topics.ITEMS.name, item.SerializeToString(), key=item_id.encode()
        )
        async with asyncio.timeout(5):
            while sorted(await offered()) != expected:
                await asyncio.sleep(0.02)


async def test_retrieval_can_be_killed_and_started_again(system: System) -> None:
    system.stop("retrieval", signal.SIGKILL)
    down = await system.until(lambda reply: bool(reply.degraded))
    system.start("retrieval")
    up = await system.until(lambda reply: not reply.degraded)

    assert list(down.degraded) == ["retrieval_unavailable"]
    assert (len(down.item_id), down.index_id) == (10, "index-1")
    assert up.candidates == 58


async def test_a_past_answer_is_explained_from_redis(system: System) -> None:
    base = f"http://127.0.0.1:{system.ports.ranker}"
    admin = f"http://127.0.0.1:{system.ports.ranker_admin}"
    answer = (await system.http.post(f"{base}/v1/recommend", json={"user_id": "u1"})).json()

    explained = (await system.http.get(f"{admin}/v1/answers/{answer['request_id']}")).json()
    hidden = await system.http.get(f"{base}/v1/answers/{answer['request_id']}")
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await system.stub.Explain(pb.ExplainRequest(request_id=answer["request_id"]))

    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "not_found")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [item["item_id"] for item in explained["items"]] == answer["item_id"]
    assert len(explained["items"][0]["contributions"]) == spec.WIDTH
    again = await system.http.post(
        f"{base}/v1/recommend", json={"user_id": "u1", "request_id": answer["request_id"]}
    )
    assert again.json() == answer


async def test_policies_shadow_and_canary_work_and_answers_come_out_again(system: System) -> None:
    system.stop("ranker")
    policy = {"cap": 4, "thompson": {"impressions_below": 20, "draws": 100}, "epsilon": 0.1}
    file = system.folder / "policies.json"
    file.write_text(json.dumps({"default": policy}))
    system.environ["ranker"] |= {
        "RANKER_POLICIES": str(file),
        "RANKER_SHADOW_ALIAS": "challenger",
        "RANKER_CANARY_ALIAS": "challenger",
        "RANKER_CANARY_PERCENT": "50",
        "RANKER_CANARY_LATENCY_MS": "60000",
        "RANKER_ANSWER_TTL_S": "1",
    }
    worst = write_ranker(system.folder / "ranker", "m2", -CHAMPION_WEIGHTS)
    await system.publish("ranker", "challenger", worst)
    system.start("ranker")
    await system.ready(system.ports.ranker)

    of_canary = await system.until(lambda reply: reply.model_id == "m2")
    of_champion = await system.until(lambda reply: reply.model_id == "m1")
    replies = [of_canary, of_champion]
    kept = await system.recommend(n=5)
    now = await system.admin.Reproduce(pb.ReproduceRequest(request_id=kept.request_id))
    admin = f"http://127.0.0.1:{system.ports.ranker_admin}"
    status = (await system.http.get(f"{admin}/v1/canary")).json()
    await asyncio.sleep(1.5)  # the kept answers of Redis are gone then
    later = await reproduced(system, of_canary.request_id)
    system.stop("ranker")

    assert (list(now.differences), later.returncode) == ([], 0), (now, later)
    assert b"equal: scores, slate, propensities and steps" in later.stdout
    assert (status["model_id"], status["running"]) == ("m2", True)
    by_id = {slate.request_id: slate for slate in await slates(system)}
    assert all(p > 0 for reply in replies for p in by_id[reply.request_id].propensity)
    shadows = [ShadowSlate.FromString(r.value or b"") for r in await records(system, topics.SHADOW)]
    assert {shadow.model_id for shadow in shadows} == {"m1"}
    assert {shadow.shadow_model_id for shadow in shadows} == {"m2"}
    assert {shadow.request_id for shadow in shadows} <= set(by_id)


async def reproduced(system: System, request_id: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from rankstream.cli import app; app()"]
    target = f"127.0.0.1:{system.ports.ranker_admin_grpc}"
    where = ["--ranker-admin-target", target, "--kafka-url", system.kafka]
    return await asyncio.to_thread(
        subprocess.run, [*command, *where, "reproduce", request_id], capture_output=True, cwd=ROOT
    )


async def test_an_index_in_the_ranker_s_own_process_answers_the_same_and_is_kept_up(
    system: System,
) -> None:
    asked = await system.recommend(request_id="r1", preview=True)
    for name in ("ranker", "retrieval"):
        system.stop(name)
    system.environ["ranker"]["RANKER_RETRIEVAL_IN_PROCESS"] = "true"
    system.start("ranker")
    await system.ready(system.ports.ranker)

    held = await system.recommend(request_id="r1", preview=True)
    first = held.item_id[0]
    gone = Item(item_id=first, withdrawn=True, updated_ms=1)
    await system.producer.send(topics.ITEMS.name, gone.SerializeToString(), key=first.encode())
    await system.until(lambda reply: first not in reply.item_id)

    assert list(held.item_id) == list(asked.item_id)
    assert (held.index_id, held.candidates, list(held.degraded)) == ("index-1", 58, [])


@pytest.mark.parametrize("in_process", [False, True])
async def test_configured_sources_reach_the_record_and_the_explanation(
    system: System, in_process: bool
) -> None:
    path = system.folder / "sources.json"
    near = Source(name="near", min_share=0.02)  # 10 of 500 at least: all that there are
    sources = Sources(
        sources=(Source(name="towers", max_share=0.01), near), fallbacks=("trending",)
    )
    path.write_text(sources.model_dump_json())
    system.environ["retrieval"]["RETRIEVAL_SOURCES"] = str(path)
    in_ranker = {"RANKER_RETRIEVAL_SOURCES": str(path), "RANKER_RETRIEVAL_IN_PROCESS": "true"}
    changed = "ranker" if in_process else "retrieval"
    system.environ["ranker"] |= in_ranker if in_process else {}
    system.stop(changed)
    for item_id in ("i10", "i11"):
        item = Item(item_id=item_id, updated_ms=1)
        item.attributes.update({"latitude": 48.0, "longitude": 11.0})
        await system.producer.send(
            topics.ITEMS.name, item.SerializeToString(), key=item_id.encode()
        )
    clicked = LabelBatch(
        strings=["i20"], item_id=[0], impression_time_ms=[1], old_clicked=[0], new_clicked=[1]
    )
    await system.producer.send(topics.LABELS.name, clicked.SerializeToString(), key=b"0")
    system.start(changed)
    await system.ready(getattr(system.ports, changed))
    await system.until(lambda reply: "i20" in reply.item_id and not reply.degraded)

    context = pb.Context(place=Place(latitude=48.0, longitude=11.01))
    reply = await system.recommend(n=50, context=context)
    explained = await system.admin.Explain(pb.ExplainRequest(request_id=reply.request_id))

    told = {item.item_id: set(item.sources) for item in explained.items}
    named = {name: {i for i, who in told.items() if name in who} for name in NAMES}
    assert named["trending"] == {"i20"}
    assert named["near"] == {"i10", "i11"}
    assert 3 <= len(named["towers"]) <= 5
    assert reply.candidates == len(told) == len(set().union(*named.values()))
