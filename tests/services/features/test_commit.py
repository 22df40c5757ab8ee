"""The fence: rows and offsets together, and by the owner only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import redis

from rankstream.adapters.redis_rows import command, offset_key
from rankstream.errors import DependencyUnavailable, Fenced
from services.features.commit import Fence, parse_offsets

pytestmark = pytest.mark.integration

NewFence = Callable[[str], Fence]


@pytest.fixture
async def new_fence(clean_redis: str) -> AsyncIterator[NewFence]:
    fences: list[Fence] = []

    def make(owner: str) -> Fence:
        fences.append(Fence(clean_redis, stage="users", partition=3, owner=owner, timeout_s=5))
        return fences[-1]

    yield make
    for fence in fences:
        await fence.close()


def stored(url: str, key: bytes) -> bytes | None:
    with redis.Redis.from_url(url) as client:
        value = client.get(key)
        assert value is None or isinstance(value, bytes)
        return value


KEY = offset_key("users", 3)
ROW = command(b"SET", b"row", b"new")


async def test_a_partition_never_committed_has_no_offsets(new_fence: NewFence) -> None:
    assert await new_fence("a").claim() == ()


async def test_rows_and_offsets_are_stored_together(new_fence: NewFence, clean_redis: str) -> None:
    fence = new_fence("a")
    await fence.claim()

    await fence.commit([ROW], (12, 7))

    assert stored(clean_redis, b"row") == b"new"
    assert parse_offsets(stored(clean_redis, KEY)) == ((12, 7), "a")
    assert await new_fence("b").claim() == (12, 7)


async def test_who_was_replaced_can_not_write(new_fence: NewFence, clean_redis: str) -> None:
    zombie, owner = new_fence("zombie"), new_fence("owner")
    await zombie.claim()
    await zombie.commit([], (5,))
    await owner.claim()

    with pytest.raises(Fenced, match="fenced: users"):
        await zombie.commit([ROW], (9,))
    with pytest.raises(Fenced):
        await zombie.commit([ROW], (9,))
    await owner.commit([], (6,))

    assert stored(clean_redis, b"row") is None
    assert parse_offsets(stored(clean_redis, KEY)) == ((6,), "owner")


async def test_a_redis_emptied_under_the_owner_is_noticed(
    new_fence: NewFence, clean_redis: str
) -> None:
    fence = new_fence("a")
    await fence.claim()
    with redis.Redis.from_url(clean_redis) as client:
        client.flushall()

    with pytest.raises(Fenced):
        await fence.commit([ROW], (1,))

    assert stored(clean_redis, b"row") is None


async def test_a_command_that_redis_refuses_stores_nothing(
    new_fence: NewFence, clean_redis: str
) -> None:
    fence = new_fence("a")
    await fence.claim()

    with pytest.raises(DependencyUnavailable, match="Redis refused to commit users"):
        await fence.commit([ROW, command(b"NO_SUCH_COMMAND")], (1,))

    assert stored(clean_redis, b"row") is None
    assert parse_offsets(stored(clean_redis, KEY)) == ((), "a")
