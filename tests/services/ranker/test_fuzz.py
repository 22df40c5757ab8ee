"""Whatever the ranker is sent, it answers or refuses by name, in time, and tells nothing of itself.

Values come from the schema of each transport: schemathesis reads the OpenAPI document, for
right and for wrong requests; protobuf fields are drawn one by one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rankstream.adapters.rpc import start_server
from rankstream.pb import ranker_pb2 as pb
from services.ranker.app import SERVICE, methods
from services.ranker.settings import RankerSettings
from tests.fuzz import (
    FILTER,
    INT32,
    INTERNALS,
    NAMED,
    PLACE,
    TEXT,
    TEXTS,
    Loop,
    fuzzing,
    mangled,
    status_of,
)
from tests.services.ranker.conftest import Rig, an_admission, apps_of, client_of

EXAMPLES = 60
EXAMPLES_SLOW = 5_000
OPERATIONS = [
    ("POST", "/v1/recommend"),
    ("POST", "/v1/rank"),
    ("GET", "/v1/answers/{request_id}"),
    ("GET", "/v1/answers/{request_id}/reproduction"),
    ("GET", "/v1/canary"),
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

CONTEXT = st.builds(
    pb.Context,
    device=TEXT,
    query=TEXT,
    location=TEXT,
    session_id=TEXT,
    place=st.none() | PLACE,
)
OVERRIDES = st.dictionaries(TEXT | st.just("exp-1"), TEXT | st.just("new"), max_size=2)
USER = st.just("u1") | TEXT
ITEMS = st.integers(0, 60).map(lambda n: [f"i{i}" for i in range(n)])
MESSAGES: dict[str, st.SearchStrategy[Message]] = {
    "Recommend": st.builds(pb.RecommendRequest, user_id=USER, n=INT32, filter=st.none() | FILTER)
    | st.builds(
        pb.RecommendRequest,
        request_id=TEXT,
        user_id=USER,
        n=st.just(0) | INT32,
        context=st.none() | CONTEXT,
        exclude_item_ids=TEXTS,
        variant_overrides=st.just({}) | OVERRIDES,
        preview=st.booleans(),
        filter=st.none() | FILTER,
    ),
    "Rank": st.builds(pb.RankRequest, user_id=USER, item_ids=ITEMS, n=INT32, preview=st.just(True))
    | st.builds(
        pb.RankRequest,
        request_id=TEXT,
        user_id=USER,
        item_ids=TEXTS | ITEMS,
        n=st.just(0) | INT32,
        context=st.none() | CONTEXT,
        variant_overrides=st.just({}) | OVERRIDES,
        preview=st.booleans(),
    ),
    "Explain": st.builds(pb.ExplainRequest, request_id=st.just("kept") | TEXT),
    "Reproduce": st.builds(
        pb.ReproduceRequest, request_id=st.just("kept") | TEXT, record=st.binary(max_size=40)
    ),
}


@dataclass
class Front:
    """A ready ranker behind both transports, with the record of an answer named `kept`."""

    loop: Loop
    rig: Rig
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    schema: Any
    record: bytes

    def grpc(self, method: str, body: bytes, timeout_s: float = 5.0) -> str:
        """How a call ends that is the only one."""
        call: Any = self.channel.unary_unary(f"/{SERVICE}/{method}")
        self.loop.run(self._until_idle())
        return self.loop.run(status_of(call, body, timeout_s))

    async def _until_idle(self) -> None:
        """What a caller has given up may still be under way, or on its way."""
        await asyncio.sleep(0)
        while self.rig.ranker.in_flight:
            await asyncio.sleep(0.001)

    def post(self, path: str, body: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self.loop.run(self.http.post(path, content=body, headers=headers))


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    loop = Loop()

    async def start() -> tuple[Rig, Any, FastAPI, httpx.AsyncClient, grpc.aio.Channel, bytes]:
        rig = Rig(RankerSettings(candidates=30, n_max=20, items_max=50))
        await rig.serve_model("champion", "m1")
        await rig.define()
        admission = an_admission(lambda: rig.ranker.in_flight)
        app = apps_of(rig, admission).admin
        server, port = await start_server(
            "127.0.0.1:0", SERVICE, methods(rig.ranker, admission), rig.health
        )
        http = client_of(app)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        await http.post("/v1/recommend", json={"user_id": "u1", "request_id": "kept"})
        (slate,) = await rig.slates()
        return rig, server, app, http, channel, slate.SerializeToString()

    rig, server, app, http, channel, record = loop.run(start())
    yield Front(loop, rig, http, channel, schemathesis.openapi.from_dict(app.openapi()), record)

    async def stop() -> None:
        await http.aclose()
        await channel.close()
        await server.stop(0)
        await rig.answers.drain(1.0)

    loop.run(stop())
    loop.close()


def check_grpc(front: Front, method: str, examples: int) -> None:
    seen = set()

    @fuzzing(examples)
    @given(MESSAGES[method])
    def any_message(message: Message) -> None:
        seen.add(front.grpc(method, message.SerializeToString()))

    any_message()
    assert {"ok"} < seen, seen


@pytest.mark.parametrize("method", MESSAGES)
def test_any_message_is_answered_or_refused_by_name(front: Front, method: str) -> None:
    check_grpc(front, method, EXAMPLES)


@pytest.mark.parametrize("method", MESSAGES)
def test_any_bytes_are_answered_or_refused_by_name(front: Front, method: str) -> None:
    seen = set()

    @fuzzing(EXAMPLES)
    @given(st.binary(max_size=200) | mangled(MESSAGES[method]))
    def any_bytes(body: bytes) -> None:
        seen.add(front.grpc(method, body))

    any_bytes()
    assert "invalid_request" in seen, seen


def test_a_record_to_reproduce_may_be_anything(front: Front) -> None:
    slate = st.just(front.record).map(lambda record: pb.ReproduceRequest(record=record))

    @fuzzing(EXAMPLES)
    @given(st.binary(max_size=200) | mangled(slate).map(lambda body: body[3:]))
    def any_record(record: bytes) -> None:
        front.grpc("Reproduce", pb.ReproduceRequest(record=record).SerializeToString())

    any_record()
    assert (
        front.grpc(
            "Reproduce",
            pb.ReproduceRequest(request_id="kept", record=front.record).SerializeToString(),
        )
        == "ok"
    )


@pytest.mark.parametrize("method", MESSAGES)
def test_a_short_deadline_ends_the_call_and_not_the_service(front: Front, method: str) -> None:
    body = {
        "Recommend": pb.RecommendRequest(user_id="u1"),
        "Rank": pb.RankRequest(user_id="u1", item_ids=["i1"]),
        "Explain": pb.ExplainRequest(request_id="kept"),
        "Reproduce": pb.ReproduceRequest(request_id="kept"),
    }[method].SerializeToString()

    short = [front.grpc(method, body, timeout_s) for timeout_s in (-1.0, 1e-9, 1e-6, 1e-4, 1e-3)]

    assert short[0] == "deadline"
    assert set(short) <= {"deadline", "ok"}
    assert front.grpc(method, body) == "ok"


def check_http(front: Front, method: str, path: str, examples: int) -> None:
    operation = front.schema[path][method]
    # Without parameters there is nothing to get wrong.
    modes = list(GenerationMode) if "{" in path or method == "POST" else [GenerationMode.POSITIVE]
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
    seen = set()

    @fuzzing(examples)
    @given(cases)
    def any_request(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://ranker")
        sent.pop("cookies", None)
        if isinstance(sent.get("data"), bytes | str):
            sent["content"] = sent.pop("data")
        reply = front.loop.run(front.http.request(**sent))
        seen.add(reply.status_code)
        case.validate_response(Response.from_httpx(reply, verify=False), checks=CHECKS)
        check_refusal(reply)

    any_request()
    assert seen <= {200, 400, 404, 405, 409, 413, 422}, seen


def check_refusal(reply: httpx.Response) -> None:
    if reply.status_code != 200:
        error = reply.json()["error"]
        assert error["code"] in {*NAMED, "not_found", "method_not_allowed"}
        assert error["message"].startswith(f"{error['code']}: ")
        assert not INTERNALS.search(error["message"]), error


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_any_request_gets_what_the_schema_documents(front: Front, method: str, path: str) -> None:
    check_http(front, method, path, EXAMPLES)


def test_the_schema_has_no_other_operations(front: Front) -> None:
    documented = {
        (one.ok().method.upper(), one.ok().path) for one in front.schema.get_all_operations()
    }

    assert documented == set(OPERATIONS)


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/rank"])
def test_any_json_is_answered_or_refused_by_name(front: Front, path: str) -> None:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
    values = st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
    )
    names = st.sampled_from(
        [
            "request_id",
            "user_id",
            "item_ids",
            "n",
            "context",
            "filter",
            "preview",
            "variant_overrides",
        ]
    )
    bodies = st.dictionaries(names, values).map(lambda fields: {"user_id": "u1", **fields})

    @fuzzing(EXAMPLES)
    @given(bodies.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=100))
    def any_body(body: bytes) -> None:
        reply = front.post(path, body)
        assert reply.status_code in (200, 400, 404, 409, 413, 422), reply.text
        check_refusal(reply)

    any_body()


def test_json_may_be_deeply_nested(front: Front) -> None:
    for body in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"user_id":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ):
        reply = front.post("/v1/recommend", body)

        assert reply.status_code in (400, 422)
        check_refusal(reply)


@pytest.mark.slow
@pytest.mark.parametrize("method", MESSAGES)
def test_far_more_messages(front: Front, method: str) -> None:
    check_grpc(front, method, EXAMPLES_SLOW)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_far_more_requests(front: Front, method: str, path: str) -> None:
    check_http(front, method, path, EXAMPLES_SLOW // 5)
