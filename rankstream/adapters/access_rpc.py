"""API keys in front of gRPC: the same keys, rates and refusals as over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc

from rankstream.adapters.access import Access
from rankstream.adapters.keys import Scope
from rankstream.adapters.rpc import Context, refuse
from rankstream.errors import RankstreamError

HEALTH: Final = "/grpc.health.v1.Health/"

# grpc itself has no generic classes where the program runs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class KeyInterceptor(grpc.aio.ServerInterceptor):
    """Asks for a key in front of every method but health.

    scopes: what each method of the service needs, by its name; all else (reflection) is `admin`.
    """

    def __init__(self, access: Access, scopes: Mapping[str, Scope]) -> None:
        self._access = access
        self._scopes = scopes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        if not method.startswith(HEALTH):
            given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
            authorization = given if isinstance(given, str) else given.decode("latin-1")
            try:
                needed = self._scopes.get(method.rpartition("/")[2], "admin")
                self._access.check(authorization, needed)
            except RankstreamError as error:
                return _refusing(error)
        return await continuation(handler_call_details)


def _refusing(error: RankstreamError) -> Handler:
    async def handle(_body: bytes, context: Context) -> bytes:
        await refuse(context, error)

    return grpc.unary_unary_rpc_method_handler(handle)
