"""Our writer, our reader and our numbers against Feast's, on a real Redis."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis

from rankstream.adapters.redis_link import RedisLink
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    VIEWS,
    RowEncoder,
    View,
)
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.features import spec
from rankstream.features.counters import CounterTable
from rankstream.features.rows import CONTEXT_ROW, TOTALS, Rows, empty_rows
from rankstream.features.snapshot import snapshot

with warnings.catch_warnings():
    # Feast's and its dependencies' own, at import.
    warnings.simplefilter("ignore")
    from feast import FeatureStore

    from pipelines.features.store import apply

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

NOW_MS = 1_790_000_000_000
IDS = ("one", "two", "ключ")


def rows_of(view: View, seed: int) -> dict[str, bytes]:
    """A packed row with some history for each id."""
    rng = np.random.default_rng(seed)
    rows = empty_rows(len(IDS), view.dtype)
    n = 300
    index = rng.integers(0, len(IDS), n)
    times = NOW_MS - rng.integers(0, 3 * 86_400_000, n)
    table = CounterTable()
    for key in IDS:
        table.row(key)
    amounts = np.zeros((n, len(TOTALS)), np.int64)
    amounts[:, :4] = rng.integers(0, 4, (n, 4))
    table.add(index, times, amounts)
    table.fill(rows, range(len(IDS)))
    rows["totals"] = rng.integers(0, 500, rows["totals"].shape)
    rows["last_ms"] = times.max()
    if view is ITEM_STATE:
        rows["category"] = [b"one", b"two", b"one"]
    return {key: rows[place].tobytes() for place, key in enumerate(IDS)}


ROWS = {view.name: rows_of(view, seed) for seed, view in enumerate(VIEWS)}


async def write(url: str) -> None:
    link = RedisLink(url, timeout_s=5)
    for view in VIEWS:
        encoder = RowEncoder(view)
        packed = [encoder.hset(key, row) for key, row in ROWS[view.name].items()]
        await link.request(b"".join(packed), len(packed))
    await link.close()


@pytest.fixture
def feast(clean_redis: str, tmp_path: Path) -> FeatureStore:
    return apply(
        redis_url=clean_redis, registry=tmp_path / "registry.db", offline=tmp_path / "offline"
    )


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_feast_reads_the_rows_that_we_write(
    feast: FeatureStore, clean_redis: str, view: View
) -> None:
    asyncio.run(write(clean_redis))

    found = feast.get_online_features(
        features=[f"{view.name}:state"],
        entity_rows=[{view.join_key: key} for key in (*IDS, "unknown")],
    ).to_dict()

    assert found["state"] == [*ROWS[view.name].values(), None]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_we_read_the_rows_that_feast_writes(
    feast: FeatureStore, clean_redis: str, view: View
) -> None:
    frame = pd.DataFrame(
        {
            view.join_key: list(IDS),
            "state": list(ROWS[view.name].values()),
            "event_timestamp": [datetime.fromtimestamp(NOW_MS / 1000, UTC)] * len(IDS),
        }
    )

    feast.write_to_online_store(view.name, frame)

    async def read() -> Rows:
        store = RedisFeatureStore(clean_redis, timeout_s=5)
        reads: dict[str, Callable[[str], Awaitable[Rows]]] = {
            USER_STATE.name: store.user,
            ITEM_STATE.name: lambda key: store.items([key]),
            CATEGORY_STATE.name: lambda key: store.categories([key]),
            QUERY_STATE.name: lambda key: _context(store, key, "", 0),
            LOCATION_STATE.name: lambda key: _context(store, "", key, 1),
        }
        rows = np.concatenate([await reads[view.name](key) for key in IDS])
        await store.close()
        return rows

    assert asyncio.run(read()).tobytes() == b"".join(ROWS[view.name].values())


async def _context(store: RedisFeatureStore, query: str, location: str, which: int) -> Rows:
    context = await store.context(query, location)
    assert context[0, 1 - which] == empty_rows(1, CONTEXT_ROW)[0]
    return context[:, which]


def test_a_row_that_feast_writes_over_ours_and_back_keeps_one_layout(
    feast: FeatureStore, clean_redis: str
) -> None:
    asyncio.run(write(clean_redis))
    with redis.Redis.from_url(clean_redis) as client:
        ours = {key: client.hgetall(key) for key in client.keys()}
        client.flushall()
        for view in VIEWS:
            for key, row in ROWS[view.name].items():
                last_s = int(np.frombuffer(row, view.dtype)["last_ms"][0]) // 1000
                stamp = datetime.fromtimestamp(last_s, UTC)
                feast.write_to_online_store(
                    view.name,
                    pd.DataFrame(
                        {view.join_key: [key], "state": [row], "event_timestamp": [stamp]}
                    ),
                )
        feasts = {key: client.hgetall(key) for key in client.keys()}

    assert ours.keys() == feasts.keys()
    for key, fields in ours.items():
        assert fields.keys() == feasts[key].keys()
        states = {name for name in fields if not name.startswith(b"_ts:")}
        assert {fields[name] for name in states} == {feasts[key][name] for name in states}


def test_the_on_demand_view_gives_what_snapshot_gives(
    feast: FeatureStore, clean_redis: str
) -> None:
    asyncio.run(write(clean_redis))
    asked = [
        ("one", "two", "two", "one", "two"),
        ("two", "one", "one", "", "one"),
        ("new", "unseen", "none", "none", ""),
    ]
    named = ("user_id", "item_id", "category", "query", "location")

    found = feast.get_online_features(
        features=feast.get_feature_service("ranker"),
        entity_rows=[dict(zip(named, ids, strict=True)) | {"as_of_ms": NOW_MS} for ids in asked],
        full_feature_names=True,
    ).to_dict()

    def rows(view: View, column: int) -> Rows:
        absent = empty_rows(1, view.dtype).tobytes()
        packed = [ROWS[view.name].get(ids[column], absent) for ids in asked]
        return np.frombuffer(b"".join(packed), view.dtype)

    want = snapshot(
        rows(USER_STATE, 0),
        rows(ITEM_STATE, 1),
        rows(CATEGORY_STATE, 2),
        np.stack([rows(QUERY_STATE, 3), rows(LOCATION_STATE, 4)], axis=1),
        np.array([NOW_MS]),
    )
    got = np.array([found[f"ranker_features__{name}"] for name in spec.NAMES], np.float32).T
    assert np.array_equal(got, want)
    assert len(np.unique(want[:2], axis=0)) == 2
