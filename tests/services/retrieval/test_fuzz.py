"""Whatever retrieval is sent, it answers or refuses by name, in time, and tells no internals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.rpc import start_server
from rankstream.candidates.catalog import Catalog
from rankstream.candidates.retrieval import INDEX, ITEMS, Limits, Retrieval
from rankstream.contracts.ids import id64
from rankstream.pb import events_pb2, retrieval_pb2
from services.retrieval.app import SERVICE, methods
from services.retrieval.deadlines import Deadlines
from tests.fuzz import FILTER, INT32, PLACE, TEXT, TEXTS, Loop, fuzzing, mangled, status_of
from tests.serving_artifacts import pointer, write_index

EXAMPLES = 150
EXAMPLES_SLOW = 5_000
ITEM_IDS = [f"i{n}" for n in range(30)]
VECTORS = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
T_MS = 1_800_000_000_000

HISTORY = st.lists(
    st.sampled_from([id64("i1"), id64("i2"), 0, 2**64 - 1]) | st.integers(0, 2**64 - 1), max_size=15
)
GOOD = st.builds(
    retrieval_pb2.RetrieveRequest,
    recent_items=st.lists(st.sampled_from([id64(item) for item in ITEM_IDS]), max_size=5),
    k=st.integers(1, 100),
    exclude_item_ids=st.lists(st.sampled_from(ITEM_IDS), max_size=15),
    filter=st.none() | FILTER,
)
ANY = st.builds(
    retrieval_pb2.RetrieveRequest,
    request_id=TEXT,
    recent_items=HISTORY,
    k=INT32,
    exclude_item_ids=TEXTS,
    exclude_items=HISTORY,
    filter=st.none() | FILTER,
    place=st.none() | PLACE,
)


@dataclass
class Front:
    """A loaded service behind gRPC."""

    loop: Loop
    channel: grpc.aio.Channel

    def ask(self, body: bytes, timeout_s: float = 5.0, method: str = "Retrieve") -> str:
        call: Any = self.channel.unary_unary(f"/{SERVICE}/{method}")
        return self.loop.run(status_of(call, body, timeout_s))

    def ask_both(self, body: bytes) -> str:
        """The status of both methods, which is one: they take and refuse the same requests."""
        status = self.ask(body)
        assert self.ask(body, method="RetrieveShard") == status
        return status


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    loop = Loop()
    popularity = np.arange(30, dtype=np.float32)
    artifact = write_index(tmp_path_factory.mktemp("index"), "i", ITEM_IDS, VECTORS, popularity)
    health = Health(INDEX, ITEMS)
    retrieval = Retrieval(
        Limits("artifacts", k_max=100, history_max=10, exclude_max=20),
        load=Catalog.load,
        health=health,
        metrics_of=Metrics(CollectorRegistry()),
    )

    every = methods(retrieval, Deadlines(time.perf_counter))

    async def start() -> tuple[grpc.aio.Server, grpc.aio.Channel]:
        value = pointer("retrieval", "champion", artifact)
        await retrieval.follow_model(Record("models", 0, 0, T_MS, b"retrieval/champion", value))
        for n, item_id in enumerate([*ITEM_IDS[:20], "new"]):
            at = {"price": float(n), "latitude": 48.0 + n / 100, "longitude": 11.5}
            item = events_pb2.Item(
                item_id=item_id, category="drama", withdrawn=n == 3, updated_ms=T_MS, attributes=at
            )
            record = Record("items", 0, n, T_MS, item_id.encode(), item.SerializeToString())
            await retrieval.follow_item(record)
        server, port = await start_server("127.0.0.1:0", SERVICE, every, health)
        return server, grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def stop() -> None:
        await channel.close()
        await server.stop(0)

    server, channel = loop.run(start())
    yield Front(loop, channel)
    loop.run(stop())
    loop.close()


def check(front: Front, examples: int) -> None:
    seen = set()

    @fuzzing(examples)
    @given(GOOD | ANY)
    def any_message(message: Message) -> None:
        seen.add(front.ask_both(message.SerializeToString()))

    any_message()
    assert seen == {"ok", "invalid_request"}


def test_any_message_is_answered_or_refused_by_name(front: Front) -> None:
    check(front, EXAMPLES)


@pytest.mark.slow
def test_far_more_messages(front: Front) -> None:
    check(front, EXAMPLES_SLOW)


def test_any_bytes_are_answered_or_refused_by_name(front: Front) -> None:
    seen = set()

    @fuzzing(EXAMPLES)
    @given(st.binary(max_size=200) | mangled(GOOD))
    def any_bytes(body: bytes) -> None:
        seen.add(front.ask_both(body))

    any_bytes()
    assert "invalid_request" in seen


def test_a_short_deadline_ends_the_call_and_not_the_service(front: Front) -> None:
    body = retrieval_pb2.RetrieveRequest(k=5).SerializeToString()

    short = [front.ask(body, timeout_s) for timeout_s in (-1.0, 1e-9, 1e-6, 1e-4, 1e-3)]

    assert short[0] == "deadline"
    # Refused at once is what has less time left than some answers take.
    assert set(short) <= {"deadline", "ok", "overloaded"}
    assert front.ask(body) == "ok"
