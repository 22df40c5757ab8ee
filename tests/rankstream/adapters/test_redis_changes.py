"""What a real Redis tells of rows that are written to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from rankstream.adapters import redis_changes
from rankstream.adapters.redis_changes import RedisChanges
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    USER_STATE,
    View,
    entity_key,
)

pytestmark = pytest.mark.integration
IDS = ("a", "ключ", "with space\r\n", "item_id")


class Told:
    """What a watcher was told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str] | None]] = []

    def tracked(self) -> None:
        self.calls.append(("tracked", None))

    def untracked(self) -> None:
        self.calls.append(("untracked", None))

    def changed(self, view: str, entity_ids: list[str] | None) -> None:
        self.calls.append((view, entity_ids))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.01)


@pytest.fixture
async def told(clean_redis: str) -> AsyncIterator[Told]:
    """Follows the rows of items and categories."""
    watcher = Told()
    task = asyncio.create_task(
        RedisChanges(clean_redis, (ITEM_STATE, CATEGORY_STATE)).follow(watcher)
    )
    await watcher.until(lambda: bool(watcher.calls))
    yield watcher
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def write(url: str, view: View, *entity_ids: str) -> None:
    """As the features service does: in one transaction."""
    with redis.Redis.from_url(url) as client, client.pipeline() as pipe:
        for entity_id in entity_ids:
            pipe.hset(entity_key(view, entity_id), view.field, b"row")
        pipe.execute()


async def test_every_row_of_a_followed_view_is_told_and_no_other(
    told: Told, clean_redis: str
) -> None:
    write(clean_redis, USER_STATE, *IDS)
    write(clean_redis, ITEM_STATE, *IDS)
    write(clean_redis, CATEGORY_STATE, "drama")
    await told.until(lambda: ("category_state", ["drama"]) in told.calls)

    items = [one for view, ids in told.calls if view == "item_state" for one in ids or ()]
    assert told.calls[0] == ("tracked", None)
    assert sorted(items) == sorted(IDS)
    assert {view for view, _ in told.calls[1:]} == {"item_state", "category_state"}


async def test_an_emptied_store_is_told_as_a_change_of_all(told: Told, clean_redis: str) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        client.flushall()

    await told.until(lambda: len(told.calls) == 3)

    assert sorted(told.calls[1:]) == [("category_state", None), ("item_state", None)]


async def test_a_lost_connection_is_told_and_made_again(told: Told, clean_redis: str) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await told.until(lambda: len(told.calls) == 3)

    write(clean_redis, ITEM_STATE, "a")
    await told.until(lambda: len(told.calls) == 4)

    assert told.calls[1:] == [("untracked", None), ("tracked", None), ("item_state", ["a"])]


async def test_a_connection_that_falls_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_changes, "PING_S", 0.05)
    monkeypatch.setattr(redis_changes, "SILENCE_S", 0.2)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n+OK\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    watcher = Told()
    following = RedisChanges(f"redis://127.0.0.1:{port}/0", (ITEM_STATE,)).follow(watcher)
    task = asyncio.create_task(following)

    await watcher.until(lambda: ("untracked", None) in watcher.calls)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.05)  # the deaf one hears that
    server.close()
    await server.wait_closed()
    assert watcher.calls[:2] == [("tracked", None), ("untracked", None)]
