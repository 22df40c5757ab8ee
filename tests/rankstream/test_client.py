"""The typed client: chunks, retries, and errors by their code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest

from rankstream import client as client_module
from rankstream.client import Client, RankedItem, Rejection
from rankstream.client.client import ATTEMPTS_MAX, BACKOFF_S, EVENTS_PER_REQUEST
from rankstream.client.replies import REJECTIONS_KEPT
from rankstream.contracts.events import Visit
from rankstream.errors import (
    DependencyUnavailable,
    InvalidRequest,
    MalformedEvent,
    NotFound,
    QueueFull,
    RankstreamError,
    TooLarge,
    Unavailable,
    UnknownAnswer,
    UnknownExperiment,
)
from rankstream.pb import ranker_pb2

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers each request with the next of its replies; remembers what it was sent."""

    def __init__(self, *replies: httpx.Response | Handler) -> None:
        self.replies = list(replies)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply if isinstance(reply, httpx.Response) else reply(request)

    def client(self) -> Client:
        return Client(transport=httpx.MockTransport(self), sleep=self.waits.append)


def all_accepted(request: httpx.Request) -> httpx.Response:
    count = len(request.content.split(b"\n"))
    return httpx.Response(202, json={"accepted": count, "rejected": []})


def refused(status: int, code: str, **more: object) -> httpx.Response:
    error = {"code": code, "message": f"{code}: why", "retryable": status == 503}
    return httpx.Response(status, json={"error": error, **more})


def a_rejection(index: int) -> dict[str, object]:
    return {"index": index, "event_id": "e", "code": "invalid_event", "message": "m"}


def test_events_are_sent_as_ndjson_in_chunks() -> None:
    server = Server(all_accepted)
    visits = [
        Visit(event_id=str(UUID(int=n)), user_id="u", event_time_ms=5)
        for n in range(EVENTS_PER_REQUEST + 1)
    ]

    with server.client() as client:
        result = client.send(visits)

    assert (result.accepted, result.rejected) == (EVENTS_PER_REQUEST + 1, 0)
    first, second = (request.content.split(b"\n") for request in server.requests)
    assert (len(first), len(second)) == (EVENTS_PER_REQUEST, 1)
    assert json.loads(second[0])["event_id"] == str(UUID(int=EVENTS_PER_REQUEST))
    assert server.requests[0].url.path == "/v1/events:ndjson"


def test_a_files_rejections_name_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("{}\n\nbad\n{}\n")
    reply = httpx.Response(202, json={"accepted": 2, "rejected": [a_rejection(1)]})

    with Server(reply).client() as client:
        result = client.send_file(file)

    assert (result.accepted, result.rejected) == (2, 1)
    assert result.rejections == (Rejection(2, "e", "invalid_event", "m"),)


def test_a_request_of_which_every_event_was_refused_is_a_result() -> None:
    rejected = [a_rejection(0), a_rejection(1)]
    server = Server(refused(422, "invalid_event", accepted=0, rejected=rejected))

    with server.client() as client:
        result = client.send_lines([b"{}", b"{}"])

    assert (result.accepted, result.rejected) == (0, 2)
    assert len(server.requests) == 1


def test_rejections_are_counted_beyond_those_kept() -> None:
    def all_rejected(request: httpx.Request) -> httpx.Response:
        count = len(request.content.split(b"\n"))
        return refused(
            422, "invalid_event", accepted=0, rejected=[a_rejection(i) for i in range(count)]
        )

    with Server(all_rejected).client() as client:
        result = client.send_lines([b"{}"] * (REJECTIONS_KEPT + 5))

    assert (result.rejected, len(result.rejections)) == (REJECTIONS_KEPT + 5, REJECTIONS_KEPT)


def test_only_events_without_an_ack_are_sent_again() -> None:
    partly = refused(
        503, "dependency_unavailable", accepted=1, rejected=[a_rejection(0)], failed=[2, 3]
    )
    server = Server(partly, all_accepted)

    with server.client() as client:
        result = client.send_lines([b"a", b"b", b"c", b"d"])

    assert [request.content for request in server.requests] == [b"a\nb\nc\nd", b"c\nd"]
    assert (result.accepted, result.rejected) == (3, 1)


def test_a_full_queue_is_tried_again_with_longer_waits_and_then_raised() -> None:
    server = Server(refused(503, "queue_full"))

    with server.client() as client, pytest.raises(QueueFull, match="0 events were accepted"):
        client.send_lines([b"{}"])

    assert len(server.requests) == ATTEMPTS_MAX
    assert server.waits == [BACKOFF_S * 2**n for n in range(ATTEMPTS_MAX - 1)]


def test_a_service_that_cannot_be_reached_is_tried_again() -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    server = Server(unreachable, all_accepted)

    with server.client() as client:
        result = client.send_lines([b"{}"])

    assert result.accepted == 1


def test_a_refusal_that_is_not_retryable_is_raised_at_once() -> None:
    server = Server(refused(413, "too_large"))

    with server.client() as client, pytest.raises(TooLarge):
        client.send_lines([b"{}"])

    assert server.waits == []


def test_a_line_too_long_for_any_request_is_named() -> None:
    with Server(all_accepted).client() as client, pytest.raises(TooLarge, match="line 2 has"):
        client.send_lines([b"{}", b"x" * 1_000_001])


@pytest.mark.parametrize(("body", "path"), [(b" [1]", "/v1/events:batch"), (b"{}", "/v1/events")])
def test_a_body_is_sent_as_it_is(body: bytes, path: str) -> None:
    server = Server(all_accepted)

    with server.client() as client:
        client.send_body(body)

    assert (server.requests[0].url.path, server.requests[0].content) == (path, body)


def test_a_body_that_cannot_be_split_raises_its_error() -> None:
    server = Server(refused(400, "malformed_event"))

    with server.client() as client, pytest.raises(MalformedEvent):
        client.send_body(b"[oops")


def test_an_unknown_experiment_raises_its_error() -> None:
    server = Server(refused(404, "unknown_experiment"))

    with server.client() as client, pytest.raises(UnknownExperiment):
        client.scorecard("a/b")

    assert server.requests[0].url.raw_path.startswith(b"/v1/experiments/a%2Fb/scorecard?alpha=0.05")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (httpx.Response(404, text="nginx"), NotFound),
        (httpx.Response(400, json=[]), InvalidRequest),
        (httpx.Response(502, text="bad gateway"), Unavailable),
    ],
)
def test_a_reply_without_our_body_goes_by_its_status(
    reply: httpx.Response, error: type[Exception]
) -> None:
    with Server(reply).client() as client, pytest.raises(error, match=str(reply.status_code)):
        client.scorecard("x")


class Ranker(grpc.GenericRpcHandler):
    """A ranker on a real channel with fixed answers."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        if method.endswith("/Recommend"):
            return grpc.unary_unary_rpc_method_handler(
                self.recommend,
                request_deserializer=ranker_pb2.RecommendRequest.FromString,
                response_serializer=ranker_pb2.RankReply.SerializeToString,
            )
        if method.endswith("/Explain"):
            return grpc.unary_unary_rpc_method_handler(
                self.explain,
                request_deserializer=ranker_pb2.ExplainRequest.FromString,
                response_serializer=ranker_pb2.ExplainReply.SerializeToString,
            )
        return None

    def recommend(
        self, request: ranker_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> ranker_pb2.RankReply:
        return ranker_pb2.RankReply(
            request_id=request.request_id,
            item_id=["a", "b"][: request.n],
            score=[0.5, 0.25][: request.n],
            propensity=[1.0, 0.5][: request.n],
            category=["x", request.context.device][: request.n],
            variant=request.variant_overrides["exp"],
            degraded=["features_timeout"],
        )

    def explain(
        self, request: ranker_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> ranker_pb2.ExplainReply:
        context.set_trailing_metadata((("error-code", "unknown_answer"),))
        context.abort(grpc.StatusCode.NOT_FOUND, f"unknown_answer: {request.request_id}")
        raise AssertionError("abort raises")


@pytest.fixture
def ranker() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Ranker()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_a_recommendation_comes_back_by_slot(ranker: str) -> None:
    with Client(ranker_target=ranker) as client:
        answer = client.recommend(
            "u",
            n=2,
            request_id="r1",
            context={"device": "phone"},
            variant_overrides={"exp": "treatment"},
        )

    assert answer.items == (RankedItem("a", 0.5, 1.0, "x"), RankedItem("b", 0.25, 0.5, "phone"))
    assert (answer.request_id, answer.variant) == ("r1", "treatment")
    assert answer.degraded == ("features_timeout",)


def test_an_unknown_answer_raises_its_error(ranker: str) -> None:
    with Client(ranker_admin_target=ranker) as client, pytest.raises(UnknownAnswer, match="r9"):
        client.explain("r9")


def test_a_ranker_that_cannot_be_reached_is_tried_again_and_then_raised() -> None:
    waits: list[float] = []

    with (
        Client(ranker_target="127.0.0.1:1", sleep=waits.append) as client,
        pytest.raises(DependencyUnavailable),
    ):
        client.rank("u", ["a"])

    assert len(waits) == ATTEMPTS_MAX - 1


def test_the_package_exports_what_it_names() -> None:
    assert all(hasattr(client_module, name) for name in client_module.__all__)


class Spy(grpc.GenericRpcHandler):
    """Knows no method; remembers what a call brought along."""

    metadata: dict[str, str | bytes]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
        self.metadata = dict(handler_call_details.invocation_metadata or ())


def test_the_api_key_goes_with_calls_of_both_kinds() -> None:
    server, spy = Server(all_accepted), Spy()
    ranker = grpc.server(ThreadPoolExecutor(1), handlers=[spy])
    port = ranker.add_insecure_port("127.0.0.1:0")
    ranker.start()

    with Client(
        ranker_admin_target=f"127.0.0.1:{port}", api_key="k", transport=httpx.MockTransport(server)
    ) as client:
        client.send([Visit(event_id=str(UUID(int=1)), user_id="u", event_time_ms=5)])
        with pytest.raises(RankstreamError):
            client.explain("r1")
    ranker.stop(0).wait()

    assert server.requests[0].headers["authorization"] == "Bearer k"
    assert spy.metadata["authorization"] == "Bearer k"
