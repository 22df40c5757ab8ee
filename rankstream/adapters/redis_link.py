"""One connection to Redis: packed commands out, replies in, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import hiredis

from rankstream.adapters.redis_rows import command
from rankstream.errors import DependencyUnavailable

DEFAULT_PORT: Final = 6379
REQUESTS_MAX: Final = 4096
CONNECT_TIMEOUT_S: Final = 5.0

Reply = bytes | int | list[Any] | Exception | None


class _Wire(asyncio.Protocol):
    """Requests wait in order; each takes the next `n` replies."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, asyncio.Future[list[Reply]]]] = deque()
        self.transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._replies: list[Reply] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader, replies = self._reader, self._replies
        reader.feed(data)
        while self.waiting:
            count, future = self.waiting[0]
            while len(replies) < count:
                reply = reader.gets()
                if reply is False:  # what hiredis says when a reply is not complete yet
                    return
                replies.append(reply)
            self.waiting.popleft()
            if not future.done():
                future.set_result(replies)
            self._replies = replies = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        while self.waiting:
            _, future = self.waiting.popleft()
            if not future.done():
                future.set_exception(ConnectionResetError(str(exc or "closed by Redis")))


class RedisLink:
    """Pipelines the requests of many tasks over one connection.

    `reconnect` false keeps to the first connection for good: what a WATCH needs.
    """

    def __init__(self, url: str, *, timeout_s: float, reconnect: bool = True) -> None:
        parts = urlsplit(url)
        assert parts.scheme == "redis", "settings check the address"
        assert parts.hostname, "settings check the address"
        self._host, self._port = parts.hostname, parts.port or DEFAULT_PORT
        self._login = login(parts.username, parts.password, parts.path.strip("/"))
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    async def request(self, packed: bytes, replies: int) -> list[Reply]:
        """Send packed commands in one write; their `replies` replies, errors among them.

        Raises: DependencyUnavailable if Redis cannot be reached, closes the connection, or does
            not answer within the timeout; the commands may have run.
        """
        wire = self._wire
        if wire is None or wire.transport is None:
            wire = await self._connect()
        if len(wire.waiting) >= REQUESTS_MAX:
            raise self._unavailable(f"{REQUESTS_MAX} requests wait already")
        assert wire.transport is not None
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        wire.waiting.append((replies, future))
        wire.transport.write(packed)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            # Later replies still find their request: this one's are dropped when they come.
            raise self._unavailable(f"no answer within {self._timeout_s * 1000:g} ms") from None
        except ConnectionResetError as error:
            raise self._unavailable(str(error)) from None

    async def _connect(self) -> _Wire:
        async with self._connecting:
            if self._wire is not None and self._wire.transport is not None:
                return self._wire
            if self._wire is not None and not self._reconnect:
                raise self._unavailable("the connection is gone")
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    _, wire = await loop.create_connection(_Wire, self._host, self._port)
            except (OSError, TimeoutError) as error:
                raise self._unavailable(str(error) or "no connection in time") from None
            if self._login:
                await self._log_in(wire)
            self._wire = wire
        return wire

    async def _log_in(self, wire: _Wire) -> None:
        assert wire.transport is not None
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        wire.waiting.append((len(self._login), future))
        wire.transport.write(b"".join(self._login))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                replies = await future
        except (TimeoutError, ConnectionResetError) as error:
            raise self._unavailable(str(error) or "no answer to the login") from None
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._unavailable(str(reply))

    async def close(self) -> None:
        """Close the connection."""
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.close()

    def _unavailable(self, why: str) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"dependency_unavailable: Redis at {self._host}:{self._port}: {why}."
            " The commands may not have run. Try again."
        )


def login(username: str | None, password: str | None, database: str) -> Sequence[bytes]:
    """The commands that a connection begins with."""
    commands = []
    if password:
        named = [unquote(username).encode()] if username else []
        commands.append(command(b"AUTH", *named, unquote(password).encode()))
    if database and database != "0":
        commands.append(command(b"SELECT", database.encode()))
    return commands
