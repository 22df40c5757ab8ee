"""Two shards of retrieval as processes, with the artefact and the topics that they have in service,
and the ranker's client of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from deploy.local.services import Ports
from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.ids import id64
from rankstream.pb.retrieval_pb2 import RetrieveRequest
from services.ranker.__main__ import remote
from services.ranker.candidates import RetrievalClient, Retrieved
from services.ranker.settings import RankerSettings
from services.ranker.shards import Shards
from tests.serving_artifacts import pointer, write_index

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
ITEM_IDS = [f"i{n}" for n in range(60)]
SHARDS = 2
WAIT_S = 30.0
DOWN = 1  # the shard that is killed


@dataclass
class System:
    environ: list[dict[str, str]]
    client: Shards
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    async def start(self, shard: int) -> None:
        """Return when it is ready."""
        environ = self.environ[shard]
        command = [sys.executable, "-m", "services.retrieval"]
        self.processes[shard] = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environ}, stdout=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{environ['RETRIEVAL_PORT']}/readyz"
        async with httpx.AsyncClient() as http, asyncio.timeout(WAIT_S):
            while True:
                with suppress(httpx.TransportError):
                    if (await http.get(url)).is_success:
                        return
                await asyncio.sleep(0.05)

    def kill(self, shard: int) -> None:
        process = self.processes.pop(shard)
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)

    async def until(self, holds: Callable[[Retrieved], bool]) -> Retrieved:
        """The first reply that holds; every one before it must be an answer too."""
        request = RetrieveRequest(k=60, recent_items=[id64("i3")])
        async with asyncio.timeout(WAIT_S):
            while not holds(reply := await self.client.retrieve(request)):
                await asyncio.sleep(0.02)
        return reply


@pytest.fixture
async def system(kafka_topics: str, tmp_path: Path) -> AsyncIterator[System]:
    vectors = np.random.default_rng(2).normal(size=(60, 8)).astype(np.float32)
    index = write_index(tmp_path, "index-1", ITEM_IDS, vectors, np.arange(60, dtype=np.float32))
    producer = EventProducer(kafka_topics)
    value = pointer("retrieval", "champion", index)
    await producer.send(topics.MODELS.name, value, key=b"retrieval/champion")
    await producer.flush_and_close()
    environ = []
    for shard in range(SHARDS):
        ports = Ports.free()
        environ.append(
            {
                "RETRIEVAL_KAFKA_URL": kafka_topics,
                "RETRIEVAL_PORT": str(ports.retrieval),
                "RETRIEVAL_GRPC_PORT": str(ports.retrieval_grpc),
                "RETRIEVAL_SHARD": str(shard),
                "RETRIEVAL_SHARDS": str(SHARDS),
            }
        )
    urls = ",".join(f"127.0.0.1:{each['RETRIEVAL_GRPC_PORT']}" for each in environ)
    settings = RankerSettings(retrieval_url=urls, retrieval_timeout_ms=2_000)
    client: Shards | RetrievalClient = remote(settings, Metrics(CollectorRegistry()))
    assert isinstance(client, Shards)
    running = System(environ, client)
    try:
        for shard in range(SHARDS):
            await running.start(shard)
        yield running
    finally:
        for shard in list(running.processes):
            running.kill(shard)
        await client.close()


async def test_a_shard_is_killed_and_comes_back_and_every_call_is_answered(system: System) -> None:
    whole = await system.until(lambda reply: not reply.degraded)
    system.kill(DOWN)
    partial = await system.until(lambda reply: bool(reply.degraded))
    await system.start(DOWN)
    again = await system.until(lambda reply: not reply.degraded)

    assert set(whole.item_ids) == set(ITEM_IDS)
    assert list(partial.degraded) == ["retrieval_partial"]
    assert set(partial.item_ids) == {i for i in ITEM_IDS if id64(i) % SHARDS != DOWN}
    assert again == whole
