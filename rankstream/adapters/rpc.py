"""gRPC of a service: methods with named errors, health and reflection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rankstream.adapters.health import Health
from rankstream.adapters.listening import listen
from rankstream.errors import InvalidRequest, RankstreamError, RateLimited

RETRY_AFTER_S: Final = 1
MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
CONCURRENT_RPCS_MAX: Final = 10_000
PENDING_MAX: Final = 1_000
BUG: Final = "internal: a bug in the service. Its log has the details."

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


async def refuse(context: Context, error: RankstreamError) -> NoReturn:
    """End a call with the error's status; trailing metadata has `error-code`, `retryable`.

    A retryable one has `retry-after` as well: seconds, as over HTTP.
    """
    told = [("error-code", error.code), ("retryable", str(error.retryable).lower())]
    if error.retryable:
        after_s = error.retry_after_s if isinstance(error, RateLimited) else RETRY_AFTER_S
        told.append(("retry-after", str(after_s)))
    await context.abort(grpc.StatusCode[error.grpc_status], str(error), tuple(told))
    raise AssertionError("abort raises")


def unary(
    request_type: type[Request],
    answer: Callable[[Request], Awaitable[Reply]],
    *,
    on_malformed: Callable[[InvalidRequest], None],
    admit: Callable[[float | None], Awaitable[None]] | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of a unary method; `answer` refuses by raising a RankstreamError.

    `admit` is awaited before a request is decoded, told the seconds to its deadline, and may refuse
    as well.
    Bytes that are not a `request_type` are refused as invalid_request, which grpc by itself would
    call an internal error; `on_malformed` counts them.
    """

    async def handle(body: bytes, context: Context) -> bytes:
        remaining_s = context.time_remaining()
        if remaining_s is not None and remaining_s <= 0:
            # Nobody waits for the answer: making it would only record something never seen.
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "expired before it was read")
        try:
            if admit is not None:
                await admit(remaining_s)
            try:
                request = request_type.FromString(body)
            except DecodeError as problem:
                error = InvalidRequest(
                    f"invalid_request: {len(body)} bytes are not a"
                    f" {request_type.DESCRIPTOR.full_name}: {problem}. Not answered."
                    " Encode it with the service's .proto file."
                )
                on_malformed(error)
                raise error from None
            return (await answer(request)).SerializeToString()
        except RankstreamError as error:
            await refuse(context, error)
        except Exception:
            # grpc by itself would tell the caller the exception's text.
            structlog.get_logger().exception("rpc_failed", request=request_type.__name__)
            await refuse(context, RankstreamError(BUG))
            raise

    return grpc.unary_unary_rpc_method_handler(handle)


class _HealthCheck(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """grpc.health.v1: SERVING while nothing is in the way. Check only; Watch is unimplemented."""

    def __init__(self, health: Health, services: frozenset[str]) -> None:
        self._health = health
        self._services = services

    async def Check(self, request: Any, context: Context) -> Any:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        statuses = health_pb2.HealthCheckResponse
        ready = not self._health.reasons()
        return statuses(status=statuses.SERVING if ready else statuses.NOT_SERVING)


async def start_server(
    address: str,
    service: str,
    methods: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
    health: Health,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    reflects: bool = True,
    pending_max: int = PENDING_MAX,
) -> tuple[grpc.aio.Server, int]:
    """A server that is listening, and its port.

    Args:
        address: host:port; port 0 takes a free one.
        service: full name, as in the .proto file.
        methods: name -> handler.
        interceptors: what stands in front of all methods, health and reflection among them.
        reflects: whether a caller may ask what there is to call.
        pending_max: calls that wait inside grpc until the loop takes them. Beyond it more and more
            are refused, beyond twice of it all, by grpc itself: CANCELLED, without our names, at
            a third of what a refusal costs here.

    Raises: CannotListen: the port is taken, or its host is not this machine.
    """
    server = grpc.aio.server(
        interceptors=interceptors,
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
            ("grpc.server.max_pending_requests", pending_max),
            ("grpc.server.max_pending_requests_hard_limit", 2 * pending_max),
        ],
        maximum_concurrent_rpcs=CONCURRENT_RPCS_MAX,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(methods)),))
    names = frozenset({"", service})
    health_pb2_grpc.add_HealthServicer_to_server(_HealthCheck(health, names), server)
    if reflects:
        checks = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        reflection.enable_server_reflection((service, checks, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        await server.stop(None)
        # grpc does not say why; the system does, asked for the same address.
        host, _, wanted = address.rpartition(":")
        for one in listen(host.strip("[]"), int(wanted), "gRPC"):
            one.close()
        raise
    await server.start()
    return server, port
