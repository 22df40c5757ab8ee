"""A gRPC method's refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from rankstream.adapters.health import Health
from rankstream.adapters.rpc import MESSAGE_BYTES_MAX, start_server, unary
from rankstream.errors import CannotListen, Overloaded
from rankstream.pb.ranker_pb2 import ExplainReply, ExplainRequest

SERVICE = "test.Service"
TIMEOUT_S = 10.0
ACCEPTED_MAX = 2  # calls that the loop has asked gRPC for before it stood still


async def broken(_request: ExplainRequest) -> ExplainReply:
    raise KeyError("secret")


async def shed(_left_s: float | None) -> None:
    raise Overloaded("overloaded: as told by the test")


async def asked(
    body: bytes, admit: Callable[[float | None], Awaitable[None]] | None = None
) -> grpc.aio.AioRpcError:
    method = unary(ExplainRequest, broken, on_malformed=lambda _error: None, admit=admit)
    server, port = await start_server("127.0.0.1:0", SERVICE, {"Ask": method}, Health())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Ask")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(body, timeout=TIMEOUT_S)
            return refused.value
    finally:
        await server.stop(0)


async def test_a_bug_is_internal_and_tells_nothing() -> None:
    refused = await asked(b"")

    assert refused.code() is grpc.StatusCode.INTERNAL
    assert refused.details() == "internal: a bug in the service. Its log has the details."
    assert dict(tuple(refused.trailing_metadata() or ()))["error-code"] == "internal"


async def test_a_message_over_the_limit_is_not_taken() -> None:
    refused = await asked(b"\x0a" * (MESSAGE_BYTES_MAX + 1))

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_that_is_shed_is_not_decoded() -> None:
    refused = await asked(b"\xff\xff", admit=shed)

    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = dict(tuple(refused.trailing_metadata() or ()))
    assert (told["error-code"], told["retry-after"]) == ("overloaded", "1")


async def test_a_taken_port_is_named() -> None:
    first, port = await start_server("127.0.0.1:0", SERVICE, {}, Health())

    with pytest.raises(CannotListen, match=rf"gRPC at 127\.0\.0\.1:{port}: .*in use"):
        await start_server(f"127.0.0.1:{port}", SERVICE, {}, Health())
    await first.stop(0)


async def test_calls_beyond_what_may_wait_are_refused_though_the_loop_is_busy() -> None:
    pending_max, calls = 4, 60
    ended: list[grpc.StatusCode] = []
    asked_first, others_refused = threading.Event(), threading.Event()
    refused = threading.Semaphore(0)

    async def answer(_request: ExplainRequest) -> ExplainReply:
        if not asked_first.is_set():  # the loop stands still until gRPC has refused
            asked_first.set()
            assert others_refused.wait(TIMEOUT_S)
        return ExplainReply()

    method = unary(ExplainRequest, answer, on_malformed=lambda _error: None)
    server, port = await start_server(
        "127.0.0.1:0", SERVICE, {"Ask": method}, Health(), pending_max=pending_max
    )

    def call_all() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Ask")
            first = call.future(b"", timeout=TIMEOUT_S)
            assert asked_first.wait(TIMEOUT_S)
            others = [call.future(b"", timeout=TIMEOUT_S) for _ in range(calls)]
            for other in others:
                other.add_done_callback(lambda _other: refused.release())
            for _ in range(calls - 2 * pending_max - ACCEPTED_MAX):
                assert refused.acquire(timeout=TIMEOUT_S)
            others_refused.set()
            ended.extend(one.code() for one in (first, *others))

    await asyncio.to_thread(call_all)
    await server.stop(0)

    answered = ended.count(grpc.StatusCode.OK)
    assert set(ended) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
    assert pending_max < answered <= 1 + 2 * pending_max + ACCEPTED_MAX
