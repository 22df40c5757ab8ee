"""The two transports say the same, and document it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from prometheus_client import CollectorRegistry

from rankstream.adapters.metrics import Metrics
from rankstream.pb import filter_pb2
from rankstream.pb import ranker_pb2 as pb
from rankstream.pb.events_pb2 import PolicyStep
from rankstream.pb.retrieval_pb2 import RetrieveRequest
from services.ranker.__main__ import retrieval_breaker
from services.ranker.app import SCOPES, SERVICE
from services.ranker.candidates import RetrievalClient, RetrievalFailed
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import Channels, Rig, an_admission, apps_of


async def test_http_answers_the_message_that_grpc_answers(channels: Channels) -> None:
    request = pb.RecommendRequest(user_id="u1", n=3, request_id="r1")

    over_grpc = await channels.stub.Recommend(request)
    over_http = await channels.http.post(
        "/v1/recommend", json={"user_id": "u1", "n": 3, "request_id": "r1"}
    )

    assert ParseDict(over_http.json(), pb.RankReply()) == over_grpc
    assert over_http.json().keys() == {field.name for field in pb.RankReply.DESCRIPTOR.fields}


async def test_an_answer_is_explained_alike_over_both(channels: Channels) -> None:
    await channels.stub.Recommend(pb.RecommendRequest(user_id="u1", n=2, request_id="r1"))

    over_grpc = await channels.stub.Explain(pb.ExplainRequest(request_id="r1"))
    over_http = await channels.http.get("/v1/answers/r1")

    assert ParseDict(over_http.json(), pb.ExplainReply()) == over_grpc
    assert len(over_http.json()["items"]) == 2


async def test_an_answer_is_made_again_alike_over_both(channels: Channels) -> None:
    await channels.stub.Recommend(pb.RecommendRequest(user_id="u1", n=2, request_id="r1"))

    over_grpc = await channels.stub.Reproduce(pb.ReproduceRequest(request_id="r1"))
    over_http = await channels.http.get("/v1/answers/r1/reproduction")

    assert ParseDict(over_http.json(), pb.ReproduceReply()) == over_grpc
    assert (over_http.json()["items"], over_http.json()["differences"]) == (2, [])


@pytest.mark.parametrize("path", ["/v1/answers/r1", "/v1/answers/r1/reproduction", "/v1/canary"])
async def test_the_public_port_does_not_know_what_is_for_operators(
    channels: Channels, path: str
) -> None:
    await channels.stub.Recommend(pb.RecommendRequest(user_id="u1", n=2, request_id="r1"))

    hidden = await channels.public_http.get(path)

    assert (hidden.status_code, hidden.json()["error"]["code"]) == (404, "not_found")
    assert (await channels.http.get(path)).status_code == 200


@pytest.mark.parametrize("method", SCOPES)
async def test_a_method_for_admins_is_not_implemented_at_the_public_port(
    channels: Channels, method: str
) -> None:
    call: Any = channels.public.unary_unary(f"/{SERVICE}/{method}")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"")

    unknown = refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert unknown == (SCOPES[method] == "admin")


async def test_the_public_port_answers_health_and_no_reflection(channels: Channels) -> None:
    health: Any = channels.public.unary_unary("/grpc.health.v1.Health/Check")
    listing: Any = channels.public.unary_unary(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    )

    assert await health(b"")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await listing(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_schema_documents_every_field_of_the_messages(rig: Rig) -> None:
    schemas = apps_of(rig, an_admission()).admin.openapi()["components"]["schemas"]

    for name, message in (
        ("RecommendRequest", pb.RecommendRequest),
        ("RankRequest", pb.RankRequest),
        ("RankReplyBody", pb.RankReply),
        ("ExplainReplyBody", pb.ExplainReply),
        ("ExplainedItemBody", pb.ExplainedItem),
        ("PolicyStepBody", PolicyStep),
        ("ReproduceReplyBody", pb.ReproduceReply),
        ("DifferenceBody", pb.Difference),
        ("ContributionBody", pb.Contribution),
        ("Context", pb.Context),
        ("ItemFilter", filter_pb2.ItemFilter),
        ("PriceRange", filter_pb2.PriceRange),
        ("GeoRadius", filter_pb2.GeoRadius),
    ):
        assert schemas[name]["properties"].keys() == set(message.DESCRIPTOR.fields_by_name), name
    assert schemas["RecommendRequest"]["examples"]


def client_of(address: str, timeout_s: float) -> RetrievalClient:
    settings = RankerSettings(retrieval_timeout_ms=1_000 * timeout_s)
    breaker = retrieval_breaker(settings, Metrics(CollectorRegistry()))
    return RetrievalClient(address, timeout_s=timeout_s, breaker=breaker)


async def test_a_retrieval_that_is_not_there_is_named_within_its_deadline() -> None:
    client = client_of("127.0.0.1:1", 2.0)

    with pytest.raises(RetrievalFailed) as failed:
        await client.retrieve(RetrieveRequest(k=5))

    assert failed.value.reason == "retrieval_unavailable"
    assert str(failed.value) == "UNAVAILABLE"  # and no address
    await client.close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (None, "retrieval_timeout"),
        (grpc.StatusCode.INVALID_ARGUMENT, "retrieval_refused"),
        (grpc.StatusCode.CANCELLED, "retrieval_overloaded"),
    ],
)
async def test_a_late_or_refusing_retrieval_is_named(
    status: grpc.StatusCode | None, reason: str
) -> None:
    async def handle(_body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if status is not None:
            await context.abort(status, "k")
        await asyncio.Event().wait()
        return b""

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "rankstream.v1.Retrieval", {"Retrieve": grpc.unary_unary_rpc_method_handler(handle)}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = client_of(f"127.0.0.1:{port}", 0.05 if status is None else 2.0)

    with pytest.raises(RetrievalFailed) as failed:
        await client.retrieve(RetrieveRequest(k=5))

    assert failed.value.reason == reason
    await client.close()
    await server.stop(0)
