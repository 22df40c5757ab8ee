"""HTTP of every service: named errors, request ids, a limit on bodies, and a graceful stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankstream.adapters.listening import listen
from rankstream.adapters.settings import ServiceSettings
from rankstream.contracts.ids import new_id
from rankstream.errors import RankstreamError, RateLimited, TooLarge

BODY_BYTES_MAX = 5_000_000
DRAIN_BYTES_MAX = 64 * 1024 * 1024
REQUEST_ID_CHARACTERS_MAX = 128
RETRY_AFTER_S = 1


def error_body(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    """The body of every refusal."""
    return {"error": {"code": code, "message": message, "retryable": retryable}}


def error_response(error: RankstreamError) -> JSONResponse:
    """The answer that a named error becomes; a retryable one says when to come back."""
    after_s = error.retry_after_s if isinstance(error, RateLimited) else RETRY_AFTER_S
    return JSONResponse(
        error_body(error.code, str(error), retryable=error.retryable),
        status_code=error.http_status,
        headers={"Retry-After": str(after_s)} if error.retryable else None,
    )


class ErrorFields(BaseModel):
    """Why a request was refused: `code` is stable, `message` is for people."""

    code: str
    message: str
    retryable: bool = Field(description="The same request may succeed later.")


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorFields


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What FastAPI takes as `responses`, for the document of the API."""
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in statuses
    }


def install_errors(app: FastAPI, *, body_bytes_max: int = BODY_BYTES_MAX) -> None:
    """Give the app our error bodies, a request id per request, and a limit on bodies."""
    app.add_exception_handler(RankstreamError, _named)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(BodyLimit, bytes_max=body_bytes_max)
    app.add_middleware(RequestId)


async def _named(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RankstreamError)
    return error_response(error)


async def _invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    malformed = first["type"] == "json_invalid"
    where = ".".join(str(part) for part in first["loc"])
    message = f"invalid_request: {where}: {first['msg']}, got {str(first.get('input'))[:80]!r}"
    body = error_body("invalid_request", message, retryable=False)
    return JSONResponse(body, status_code=400 if malformed else 422)


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    body = error_body(code, f"{code}: {error.detail}", retryable=False)
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


async def _gone(_request: Request, _error: Exception) -> Response:
    # The client hung up while it sent its body: nobody reads this, and it is no bug of ours.
    return Response(status_code=400)


async def _bug(_request: Request, _error: Exception) -> JSONResponse:
    # Starlette raises the exception again after this answer, so it is logged where it is ours.
    message = "internal: a bug in the service; its log has the details under this request id"
    return JSONResponse(error_body("internal", message, retryable=False), status_code=500)


class RequestId:
    """Take or mint X-Request-Id, bind it to the logs, give it back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id").decode("latin-1")
        usable = given.isascii() and given.isprintable() and given.strip()
        request_id = given[:REQUEST_ID_CHARACTERS_MAX] if usable else new_id()
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self.app(scope, receive, send_with_id)


class BodyLimit:
    """Answer 413 to a body over the limit, before anything reads it."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self.app = app
        self.bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        if declared:
            if int(declared) > self.bytes_max:
                await self._drain(receive)
                await self._refuse(int(declared), scope, receive, send)
            else:
                await self.app(scope, receive, send)
            return
        messages, size = await self._buffer(receive)
        if size > self.bytes_max:
            if messages[-1].get("more_body", False):
                await self._drain(receive)
            await self._refuse(size, scope, receive, send)
            return
        replayed = iter(messages)

        async def replay() -> Message:
            return next(replayed, None) or await receive()

        await self.app(scope, replay, send)

    async def _buffer(self, receive: Receive) -> tuple[list[Message], int]:
        """The messages of a body of undeclared length, until its end or just over the limit."""
        messages: list[Message] = []
        size = 0
        while size <= self.bytes_max:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        return messages, size

    async def _drain(self, receive: Receive) -> None:
        """Take what the client is still sending, within reason: a client that finds the connection
        closed while it sends never reads why.
        """
        drained, more = 0, True
        while more and drained < DRAIN_BYTES_MAX:
            message = await receive()
            drained += len(message.get("body", b""))
            more = message["type"] == "http.request" and message.get("more_body", False)

    async def _refuse(self, size: int, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(
            f"too_large: a body of at least {size} bytes (limit {self.bytes_max}). Not taken."
            " Send several smaller requests."
        )
        await error_response(error)(scope, receive, send)


def _header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process before we have drained."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@dataclass(frozen=True)
class Listener:
    """An app, and where it listens."""

    app: ASGIApp
    host: str
    port: int


def _server(listener: Listener, shutdown_timeout_s: float) -> _Server:
    return _Server(
        uvicorn.Config(
            listener.app,
            host=listener.host,
            port=listener.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(shutdown_timeout_s)),
        )
    )


async def serve(
    app: ASGIApp,
    settings: ServiceSettings,
    *,
    on_stop: Callable[[], Awaitable[None]],
    background: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Serve one app at the service's port; see `serve_all`."""
    listener = Listener(app, settings.host, settings.port)
    await serve_all([listener], settings, on_stop=on_stop, background=background)


async def serve_all(
    listeners: Sequence[Listener],
    settings: ServiceSettings,
    *,
    on_stop: Callable[[], Awaitable[None]],
    background: Sequence[Coroutine[Any, Any, None]] = (),
) -> None:
    """Serve until SIGTERM or SIGINT, then stop without losing what was accepted.

    Order: no new connections; requests in flight end (at most shutdown_timeout_s); `background`
    is cancelled and awaited; `on_stop` runs. A background coroutine that ends or fails stops the
    service the same way, and its error is raised at the end.

    Raises: CannotListen: a port is taken, or its host is not this machine; nothing was served.
    """
    servers = [_server(listener, settings.shutdown_timeout_s) for listener in listeners]

    def stop() -> None:
        for server in servers:
            server.force_exit = server.should_exit
            server.should_exit = True

    def end(_task: asyncio.Task[None]) -> None:
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [asyncio.create_task(coroutine) for coroutine in background]
    for task in tasks:
        task.add_done_callback(end)
    try:
        # Not by uvicorn, which ends the process itself, with no error that could be named.
        sockets = [listen(listener.host, listener.port) for listener in listeners]
        await asyncio.gather(
            *(server.serve(bound) for server, bound in zip(servers, sockets, strict=True))
        )
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await on_stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            raise outcome
