"""What bad input gets, over both transports."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from rankstream import errors
from rankstream.adapters.admission import Admission
from rankstream.adapters.rpc import start_server
from rankstream.pb import ranker_pb2 as pb
from rankstream.pb import ranker_pb2_grpc
from services.ranker.app import SERVICE, methods
from tests.services.ranker.conftest import Channels, Rig, an_admission, apps_of, client_of

# path, fields, error, part of the message
FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"near": {"latitude": 91.0, "longitude": 0.0, "radius_km": 5.0}}, "near.latitude"),
    ({"near": {"latitude": 0.0, "longitude": 181.0, "radius_km": 5.0}}, "near.longitude"),
    ({"near": {"latitude": 0.0, "longitude": 0.0, "radius_km": 0.0}}, "near.radius_km"),
    ({"price": {}}, "a price range needs min or max"),
    ({"price": {"min": 2.0, "max": 1.0}}, "min 2 is above max 1"),
    ({"categories": ["c" * 65]}, "category of 65 bytes"),
    ({"categories": ["c"] * 101}, "filter.categories"),
    ({"item_ids": [""]}, "filter.item_ids.0"),
]
REFUSED: list[tuple[str, dict[str, Any], type[errors.RankstreamError], str]] = [
    ("recommend", {"user_id": ""}, errors.InvalidRequest, "user_id"),
    ("recommend", {}, errors.InvalidRequest, "user_id"),
    ("recommend", {"user_id": "u" * 257}, errors.InvalidRequest, "user_id"),
    ("recommend", {"user_id": "u1", "n": -1}, errors.InvalidRequest, "n is -1 (limit 0..20)"),
    (
        "recommend",
        {"user_id": "u1", "n": 100_000},
        errors.InvalidRequest,
        "n is 100000 (limit 0..20",
    ),
    ("recommend", {"user_id": "u1", "request_id": "r" * 129}, errors.InvalidRequest, "request_id"),
    (
        "recommend",
        {"user_id": "u1", "exclude_item_ids": [""]},
        errors.InvalidRequest,
        "exclude_item_ids.0",
    ),
    (
        "recommend",
        {"user_id": "u1", "exclude_item_ids": ["x"] * 1_001},
        errors.InvalidRequest,
        "exclude_item_ids",
    ),
    *(
        ("recommend", {"user_id": "u1", "filter": wanted}, errors.InvalidRequest, message)
        for wanted, message in FILTERS
    ),
    (
        "recommend",
        {"user_id": "u1", "context": {"query": "q" * 1_025}},
        errors.InvalidRequest,
        "context.query",
    ),
    (
        "recommend",
        {"user_id": "u1", "variant_overrides": {"nope": "new"}},
        errors.UnknownExperiment,
        "names 'nope', which is not defined",
    ),
    (
        "recommend",
        {"user_id": "u1", "variant_overrides": {"exp-1": "nope"}},
        errors.InvalidRequest,
        "variant 'nope' of exp-1, which has control, new",
    ),
    (
        "rank",
        {"user_id": "u1", "item_ids": []},
        errors.InvalidRequest,
        "the number of item_ids is 0 (limit 1..50)",
    ),
    (
        "rank",
        {"user_id": "u1", "item_ids": [f"i{n}" for n in range(100_000)]},
        errors.InvalidRequest,
        "the number of item_ids is 100000 (limit 1..50)",
    ),
    ("rank", {"user_id": "u1", "item_ids": ["i1", "i1"]}, errors.InvalidRequest, "an item twice"),
    ("rank", {"user_id": "u1", "item_ids": [""]}, errors.InvalidRequest, "item_ids.0"),
    ("rank", {"user_id": "u1", "item_ids": ["i" * 257]}, errors.InvalidRequest, "item_ids.0"),
    ("rank", {"user_id": "u1", "item_ids": ["i1"], "n": -5}, errors.InvalidRequest, "n is -5"),
]
NAMES = [f"{path}-{number}" for number, (path, *_) in enumerate(REFUSED)]
MESSAGES = {"recommend": pb.RecommendRequest, "rank": pb.RankRequest}


@pytest.mark.parametrize(("path", "fields", "error", "message"), REFUSED, ids=NAMES)
async def test_over_grpc_it_is_a_named_error(
    rig: Rig,
    channels: Channels,
    path: str,
    fields: dict[str, Any],
    error: type[errors.RankstreamError],
    message: str,
) -> None:
    await rig.define()
    call = getattr(channels.stub, path.title())

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(MESSAGES[path](**fields))

    assert message in (refused.value.details() or "")
    assert refused.value.code() is grpc.StatusCode[error.grpc_status]
    metadata = dict(tuple(refused.value.trailing_metadata() or ()))
    assert (metadata["error-code"], metadata["retryable"]) == (error.code, "false")
    assert await rig.slates() == []
    labels = {"method": path, "transport": "grpc", "status": error.code}
    assert rig.count("ranker_requests_total", **labels) == 1


@pytest.mark.parametrize(("path", "fields", "error", "message"), REFUSED, ids=NAMES)
async def test_over_http_it_is_the_same_named_error(
    rig: Rig,
    channels: Channels,
    path: str,
    fields: dict[str, Any],
    error: type[errors.RankstreamError],
    message: str,
) -> None:
    await rig.define()

    reply = await channels.http.post(f"/v1/{path}", json=fields)

    assert reply.status_code == error.http_status
    assert reply.json()["error"]["code"] == error.code
    assert message in reply.json()["error"]["message"]
    assert reply.json()["error"]["retryable"] is False
    assert await rig.slates() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b'"u1"', 422),
        (b'{"user_id": 7}', 422),
        (b'{"user_id": "u1", "n": NaN}', 422),
        (b'{"user_id": "u1", "n": 1e400}', 422),
        (b'{"user_id": "u1", "n": 2.5}', 422),
        (b'{"user_id": "u1", "n": "10"}', 422),
        (b'{"user_id": "u1", "surprise": 1}', 422),
        (b'{"user_id": "\\ud800"}', 422),
        (b'{"user_id": "' + b"u" * 5_000_001 + b'"}', 413),
    ],
    ids=["empty", "cut", "bytes", "list", "text", "number", "nan", "inf", "float", "quoted",
         "unknown-field", "surrogate", "huge"],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_a_named_error(
    channels: Channels, body: bytes, status: int
) -> None:
    headers = {"content-type": "application/json"}

    reply = await channels.http.post("/v1/recommend", content=body, headers=headers)

    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["code"] in ("invalid_request", "too_large")


@pytest.mark.parametrize("method", ["Recommend", "Rank", "Explain", "Reproduce"])
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28"], ids=["bytes", "not-utf8"])
async def test_wrong_protobuf_is_a_named_error(
    rig: Rig, channels: Channels, method: str, body: bytes
) -> None:
    call: Any = channels.channel.unary_unary(f"/{SERVICE}/{method}")

    with pytest.raises(grpc.aio.AioRpcError, match="invalid_request") as refused:
        await call(body)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    labels = {"method": method.lower(), "transport": "grpc", "status": "invalid_request"}
    assert rig.count("ranker_requests_total", **labels) == 1


async def test_a_deadline_that_passes_ends_the_work_and_serves_nothing(
    rig: Rig, channels: Channels
) -> None:
    rig.retrieval.gate = asyncio.Event()

    with pytest.raises(grpc.aio.AioRpcError) as late:
        await channels.stub.Recommend(pb.RecommendRequest(user_id="u1"), timeout=0.05)
    cancelled = {"method": "recommend", "transport": "grpc", "status": "cancelled"}
    async with asyncio.timeout(5.0):
        while not rig.count("ranker_requests_total", **cancelled):
            await asyncio.sleep(0.005)

    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await rig.slates() == []


class ExpiredContext:
    """The context of a call whose deadline has passed before it was read."""

    aborted: grpc.StatusCode | None = None

    def time_remaining(self) -> float:
        return 0.0

    async def abort(self, code: grpc.StatusCode, _details: str) -> None:
        self.aborted = code
        raise asyncio.CancelledError


async def test_a_call_that_comes_too_late_is_not_worked_on(rig: Rig) -> None:
    context = ExpiredContext()
    handler: Any = methods(rig.ranker, an_admission())["Recommend"]

    with pytest.raises(asyncio.CancelledError):
        await handler.unary_unary(pb.RecommendRequest(user_id="u1").SerializeToString(), context)

    assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert rig.retrieval.asked == []


async def test_unknown_users_and_items_are_answered_and_named(rig: Rig, channels: Channels) -> None:
    over_grpc = await channels.stub.Rank(pb.RankRequest(user_id="new", item_ids=["i1", "new"]))
    over_http = (
        await channels.http.post("/v1/rank", json={"user_id": "new", "item_ids": ["i1", "new"]})
    ).json()

    assert list(over_grpc.degraded) == over_http["degraded"] == ["unknown_user"]
    assert list(over_grpc.unknown_item_ids) == over_http["unknown_item_ids"] == ["new"]
    assert list(over_grpc.item_id) == over_http["item_id"] == ["i1", "new"]


@pytest.mark.parametrize(("request_id", "status"), [("nope", 404), ("%20", 404), ("%00", 404)])
async def test_an_unknown_answer_is_not_found(
    channels: Channels, request_id: str, status: int
) -> None:
    reply = await channels.http.get(f"/v1/answers/{request_id}")
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await channels.stub.Explain(pb.ExplainRequest(request_id="nope"))

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, "unknown_answer")
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_shed_request_says_when_to_come_back(rig: Rig, channels: Channels) -> None:
    rig.health.not_ready("features", "gone")

    over_http = await channels.http.post("/v1/recommend", json={"user_id": "u1"})
    with pytest.raises(grpc.aio.AioRpcError) as over_grpc:
        await channels.stub.Recommend(pb.RecommendRequest(user_id="u1"))

    assert (over_http.status_code, over_http.headers["retry-after"]) == (503, "1")
    assert over_http.json()["error"] == {
        "code": "not_ready",
        "message": "not_ready: features: gone. Not answered. Try again soon.",
        "retryable": True,
    }
    assert over_grpc.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_shed_calls_are_told_when_to_come_again_and_counted(rig: Rig) -> None:
    full = Admission(
        wait_s=-1.0, clock_s=time.monotonic, running=lambda: 1, waited_s=lambda _wait_s: None
    )
    server, port = await start_server("127.0.0.1:0", SERVICE, methods(rig.ranker, full), rig.health)

    async with (
        client_of(apps_of(rig, full).public) as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        make_stub: Any = ranker_pb2_grpc.RankerStub  # generated without types
        with pytest.raises(grpc.aio.AioRpcError) as shed:
            await make_stub(channel).Recommend(pb.RecommendRequest(user_id="u1"))
        over_http = await http.post("/v1/recommend", json={"user_id": "u1"})
    await server.stop(0)

    told = dict(shed.value.trailing_metadata() or ())
    assert shed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (told["error-code"], told["retryable"], told["retry-after"]) == (
        "overloaded",
        "true",
        "1",
    )
    assert (over_http.status_code, over_http.headers["retry-after"]) == (429, "1")
    assert over_http.json()["error"]["code"] == "overloaded"
    for transport_name in ("grpc", "http"):
        labels = {"method": "recommend", "transport": transport_name, "status": "overloaded"}
        assert rig.count("ranker_requests_total", **labels) == 1
