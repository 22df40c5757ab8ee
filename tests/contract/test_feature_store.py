"""What every FeatureStore promises, on the fake and on Redis."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import numpy as np
import pytest

from rankstream.adapters.redis_link import RedisLink
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    RowEncoder,
    View,
    command,
    entity_key,
)
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.errors import DependencyUnavailable, SpecMismatch
from rankstream.features.rows import Rows, empty_rows
from rankstream.ports import FeatureStore
from rankstream.testing import FakeFeatureStore

IDS = ("a", "b", "ключ", "with space\r\n", "x" * 256)


def rows_of(view: View, seed: int) -> dict[str, Rows]:
    """A row of random numbers for each id."""
    rng = np.random.default_rng(seed)
    stored = {}
    for entity_id in IDS:
        rows = empty_rows(1, view.dtype)
        rows["totals"] = rng.integers(0, 1 << 40, rows["totals"].shape)
        rows["last_ms"] = rng.integers(1, 1 << 41)
        rows["offset"] = rng.integers(0, 1 << 50)
        stored[entity_id] = rows
    return stored


USERS, ITEMS = rows_of(USER_STATE, 1), rows_of(ITEM_STATE, 2)
CATEGORIES = rows_of(CATEGORY_STATE, 3)
QUERIES, LOCATIONS = rows_of(QUERY_STATE, 4), rows_of(LOCATION_STATE, 5)
STORED = {
    USER_STATE: USERS,
    ITEM_STATE: ITEMS,
    CATEGORY_STATE: CATEGORIES,
    QUERY_STATE: QUERIES,
    LOCATION_STATE: LOCATIONS,
}


async def written(url: str) -> RedisFeatureStore:
    link = RedisLink(url, timeout_s=5)
    for view, rows in STORED.items():
        encoder = RowEncoder(view)
        packed = [encoder.hset(key, row.tobytes()) for key, row in rows.items()]
        await link.request(b"".join(packed), len(packed))
    await link.close()
    return RedisFeatureStore(url, timeout_s=5)


@pytest.fixture(params=["fake", pytest.param("redis", marks=pytest.mark.integration)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FeatureStore]:
    if request.param == "fake":
        yield FakeFeatureStore(
            users=USERS, items=ITEMS, categories=CATEGORIES, queries=QUERIES, locations=LOCATIONS
        )
        return
    real = await written(request.getfixturevalue("clean_redis"))
    yield real
    await real.close()


@pytest.mark.parametrize("user", IDS)
async def test_gives_the_row_of_a_user(store: FeatureStore, user: str) -> None:
    found = await store.user(user)

    assert found.dtype == USER_STATE.dtype
    assert found.shape == (1,)
    assert found.tobytes() == USERS[user].tobytes()


async def test_gives_items_in_the_order_asked_and_as_often(store: FeatureStore) -> None:
    asked = [*reversed(IDS), "a", "a"]

    found = await store.items(asked)

    assert found.dtype == ITEM_STATE.dtype
    assert found.tobytes() == b"".join(ITEMS[key].tobytes() for key in asked)


async def test_gives_the_empty_row_of_what_it_does_not_know(store: FeatureStore) -> None:
    users, items = await store.user("nobody"), await store.items(["a", "nothing", ""])
    categories = await store.categories(["none"])

    assert users.tobytes() == empty_rows(1, USER_STATE.dtype).tobytes()
    assert items[1:].tobytes() == empty_rows(2, ITEM_STATE.dtype).tobytes()
    assert items[0].tobytes() == ITEMS["a"].tobytes()
    assert categories.tobytes() == empty_rows(1, CATEGORY_STATE.dtype).tobytes()


async def test_keeps_what_has_one_name_apart(store: FeatureStore) -> None:
    found = (await store.user("a"), await store.items(["a"]), await store.categories(["a"]))
    context = await store.context("a", "a")

    assert [*(rows["offset"][0] for rows in found), *context["offset"][0]] == [
        rows["a"]["offset"][0] for rows in STORED.values()
    ]


@pytest.mark.parametrize("query", [*IDS, "", "never asked"])
@pytest.mark.parametrize("location", ["b", "", "nowhere"])
async def test_gives_a_query_and_a_location(store: FeatureStore, query: str, location: str) -> None:
    none = empty_rows(1, QUERY_STATE.dtype)

    found = await store.context(query, location)

    assert found.dtype == QUERY_STATE.dtype
    assert found.shape == (1, 2)
    wanted = QUERIES.get(query, none), LOCATIONS.get(location, none)
    assert found.tobytes() == b"".join(row.tobytes() for row in wanted)


async def test_gives_a_user_and_items_together(store: FeatureStore) -> None:
    user, items = await store.user_and_items("b", ["b", "unknown", "a"])

    assert user.tobytes() == USERS["b"].tobytes()
    assert items[[0, 2]].tobytes() == (await store.items(["b", "a"])).tobytes()


async def test_gives_nothing_for_nothing(store: FeatureStore) -> None:
    assert (await store.items([])).shape == (0,)
    assert (await store.categories([])).shape == (0,)
    assert (await store.user_and_items("a", []))[1].shape == (0,)


async def test_rows_cannot_be_written_to(store: FeatureStore) -> None:
    found = await store.items(["a"])

    with pytest.raises(ValueError, match="read-only"):
        found["offset"] = 1


@pytest.mark.integration
async def test_a_row_of_another_layout_is_refused_by_name(clean_redis: str) -> None:
    link = RedisLink(clean_redis, timeout_s=5)
    await link.request(
        command(b"HSET", entity_key(ITEM_STATE, "old"), ITEM_STATE.field, b"\x0a\x01x"), 1
    )
    real = RedisFeatureStore(clean_redis, timeout_s=5)

    with pytest.raises(SpecMismatch, match=r"item_state in Redis has values of \[3\] bytes"):
        await real.items(["old", "new"])

    await link.close()
    await real.close()


async def test_a_redis_that_is_not_there_is_named() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    real = RedisFeatureStore(f"redis://127.0.0.1:{port}/0", timeout_s=1)

    with pytest.raises(DependencyUnavailable, match=f"Redis at 127.0.0.1:{port}"):
        await real.user("a")


@pytest.mark.integration
async def test_a_slow_answer_is_given_up_and_the_next_is_still_its_own(clean_redis: str) -> None:
    link = RedisLink(clean_redis, timeout_s=0.1)
    await link.request(command(b"SET", b"k", b"v"), 1)

    with pytest.raises(DependencyUnavailable, match="no answer within 100 ms"):
        await link.request(command(b"DEBUG", b"SLEEP", b"0.3"), 1)

    patient = RedisLink(clean_redis, timeout_s=5)
    assert await patient.request(command(b"GET", b"k"), 1) == [b"v"]
    assert await link.request(command(b"GET", b"k"), 1) == [b"v"]
    await link.close()
    await patient.close()
