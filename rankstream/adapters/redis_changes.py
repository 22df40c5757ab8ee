"""Which feature rows have changed in Redis, as it says so itself.

Redis tells a client that tracks key prefixes of every key that is written to (CLIENT TRACKING,
broadcasting mode, RESP 3): what is not named since it was read need not be read again.

Source: redis.io, "Client-side caching reference"; Redis 6 or later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit

import hiredis
import structlog

from rankstream.adapters.redis_link import DEFAULT_PORT, login
from rankstream.adapters.redis_rows import KeyReader, View, command

CONNECT_TIMEOUT_S: Final = 5.0
# A connection that says nothing for so long, not even to a PING, is taken for dead.
PING_S: Final = 1.0
SILENCE_S: Final = 3.0
RETRY_S: Final = 0.5
READ_BYTES: Final = 1 << 16


class Watcher(Protocol):
    """Who is told of changes."""

    def tracked(self) -> None:
        """From now on every change is told."""

    def untracked(self) -> None:
        """From now on none is."""

    def changed(self, view: str, entity_ids: list[str] | None) -> None:
        """Rows of a view were written to; None: maybe all were."""


class RedisChanges:
    """One connection that tracks the rows of some views."""

    def __init__(self, url: str, views: tuple[View, ...]) -> None:
        parts = urlsplit(url)
        assert parts.hostname, "settings check the address"
        self._host, self._port = parts.hostname, parts.port or DEFAULT_PORT
        readers = {view.name: KeyReader(view) for view in views}
        self._readers: Mapping[str, KeyReader] = readers
        prefixes = [part for reader in readers.values() for part in (b"PREFIX", reader.prefix)]
        self._hello = [
            command(b"HELLO", b"3"),
            *login(parts.username, parts.password, parts.path.strip("/")),
            command(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *prefixes),
        ]

    async def follow(self, watcher: Watcher) -> NoReturn:
        """Tell of changes for ever; what a lost connection hides is told as `untracked`."""
        refused = ""
        while True:
            try:
                await self._follow_once(watcher)
            except (OSError, TimeoutError, EOFError, hiredis.HiredisError) as error:
                why = str(error) or type(error).__name__
                if why != refused:
                    structlog.get_logger().warning("changes_not_tracked", reason=why)
                refused = why
            await asyncio.sleep(RETRY_S)

    async def _follow_once(self, watcher: Watcher) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            await self._listen(reader, writer, watcher)
        finally:
            watcher.untracked()
            writer.close()

    async def _listen(
        self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter, watcher: Watcher
    ) -> None:
        replies = hiredis.Reader()
        writer.write(b"".join(self._hello))
        clock = asyncio.get_running_loop().time
        waiting, heard_s = len(self._hello), clock()
        while True:
            try:
                async with asyncio.timeout(PING_S):
                    data = await stream.read(READ_BYTES)
            except TimeoutError:
                if clock() - heard_s > SILENCE_S:
                    raise
                writer.write(command(b"PING"))
                continue
            if not data:
                raise EOFError("closed by Redis")
            heard_s = clock()
            replies.feed(data)
            for reply in _all(replies):
                if isinstance(reply, hiredis.PushNotification):
                    self._tell(reply, watcher)
                elif isinstance(reply, Exception):
                    raise reply
                elif waiting:
                    waiting -= 1
                    if waiting == 0:
                        watcher.tracked()

    def _tell(self, push: Any, watcher: Watcher) -> None:
        if push[0] != b"invalidate":
            return
        keys = push[1]
        for name, reader in self._readers.items():
            ids = None if keys is None else reader.entity_ids(keys)
            if ids is None or ids:
                watcher.changed(name, ids)


def _all(replies: Any) -> Any:
    while (reply := replies.gets()) is not False:
        yield reply
