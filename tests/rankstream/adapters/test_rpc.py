"""A gRPC method's refusals."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from rankstream.adapters.health import Health
from rankstream.adapters.rpc import MESSAGE_BYTES_MAX, start_server, unary
from rankstream.pb.ranker_pb2 import ExplainReply, ExplainRequest

SERVICE = "test.Service"


async def broken(_request: ExplainRequest) -> ExplainReply:
    raise KeyError("secret")


async def asked(body: bytes) -> grpc.aio.AioRpcError:
    method = unary(ExplainRequest, broken, on_malformed=lambda _error: None)
    server, port = await start_server("127.0.0.1:0", SERVICE, {"Ask": method}, Health())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/Ask")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(body)
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
