"""Feature rows go to Redis through Feast, and never over a row that knows more of the log."""

from __future__ import annotations

import asyncio
import warnings
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
    USER_STATE,
    RowEncoder,
    View,
    entity_key,
)
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.errors import InvalidInput, InvalidRequest, SpecMismatch
from rankstream.features.rows import Rows, empty_rows
from tests.parity.events import START_MS, an_event
from tests.pipelines.features.test_backfill import a_backfill, logged, nobody_hears

with warnings.catch_warnings():
    # Feast's and its dependencies' own, at import.
    warnings.simplefilter("ignore")
    from feast import FeatureStore, FeatureView

    from pipelines.features.materialize import Materialized, materialize
    from pipelines.features.online_store import StampedOnlineStore
    from pipelines.features.store import apply

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

LATER_MS = START_MS + 86_400_000


def a_row(
    view: View, *, partition: int = 0, offset: int = -1, items_offset: int = -1, last_ms: int = 0
) -> bytes:
    row = empty_rows(1, view.dtype)
    row["partition"], row["offset"], row["items_offset"] = partition, offset, items_offset
    row["last_ms"] = last_ms
    return row.tobytes()


def stream_writes(url: str, view: View, entity: str, row: bytes) -> None:
    async def write() -> None:
        link = RedisLink(url, timeout_s=5)
        await link.request(RowEncoder(view).hset(entity, row), 1)
        await link.close()

    asyncio.run(write())


def stored(url: str, view: View, entity: str) -> Rows:
    async def read() -> Rows:
        store = RedisFeatureStore(url, timeout_s=5)
        rows = {
            USER_STATE.name: lambda: store.user(entity),
            ITEM_STATE.name: lambda: store.items([entity]),
            CATEGORY_STATE.name: lambda: store.categories([entity]),
        }
        found = await rows[view.name]()
        await store.close()
        return found

    return asyncio.run(read())


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    """Feature rows: ann at offsets 0 and 5, bob at 3; each views i0."""
    events = [
        an_event("view", 1),
        an_event("view", 2, after_ms=10, user="bob"),
        an_event("view", 3, after_ms=20, category="war"),
    ]
    a_backfill(logged(events, offsets=[0, 3, 5], partition=0), tmp_path / "rows")
    return tmp_path / "rows"


@pytest.fixture
def store(clean_redis: str, tmp_path: Path, offline: Path) -> FeatureStore:
    return apply(redis_url=clean_redis, registry=tmp_path / "registry.db", offline=offline)


def test_an_emptied_redis_gets_each_entitys_newest_row_back(
    store: FeatureStore, clean_redis: str, offline: Path
) -> None:
    done = materialize(store, offline, until_ms=LATER_MS, step=nobody_hears)

    assert done["user_state"] == Materialized(2, 2, 0)
    assert done["item_state"] == Materialized(7, 7, 0)
    ann, item = stored(clean_redis, USER_STATE, "ann"), stored(clean_redis, ITEM_STATE, "i0")
    assert (ann["offset"][0], ann["totals"][0, 2], ann["last_ms"][0]) == (5, 2, START_MS + 20)
    assert item["totals"][0, 2] == 3
    assert stored(clean_redis, CATEGORY_STATE, "war")["totals"][0, 2] == 1
    again = materialize(store, offline, until_ms=LATER_MS, step=nobody_hears)
    assert again["user_state"] == Materialized(2, 0, 2)


def test_rows_are_those_of_the_time_asked_for_and_of_the_ttl(
    store: FeatureStore, clean_redis: str, offline: Path
) -> None:
    materialize(store, offline, until_ms=START_MS + 15, step=nobody_hears)
    assert stored(clean_redis, USER_STATE, "ann")["offset"][0] == 0

    years = materialize(store, offline, until_ms=START_MS + 10**11, step=nobody_hears)

    assert years["user_state"].rows == 0
    assert years["item_state"].rows == 7


def test_what_the_stream_wrote_and_is_ahead_stays(
    store: FeatureStore, clean_redis: str, offline: Path
) -> None:
    ahead = a_row(USER_STATE, offset=6, last_ms=START_MS)
    behind = a_row(USER_STATE, offset=2, last_ms=START_MS + 5)
    counted = a_row(ITEM_STATE, offset=0, last_ms=START_MS)
    stream_writes(clean_redis, USER_STATE, "ann", ahead)
    stream_writes(clean_redis, USER_STATE, "bob", behind)
    stream_writes(clean_redis, ITEM_STATE, "i0", counted)

    done = materialize(store, offline, until_ms=LATER_MS, step=nobody_hears)

    assert done["user_state"] == Materialized(2, 1, 1)
    assert stored(clean_redis, USER_STATE, "ann").tobytes() == ahead
    assert stored(clean_redis, USER_STATE, "bob")["offset"][0] == 3
    assert stored(clean_redis, ITEM_STATE, "i0").tobytes() == counted


@pytest.mark.parametrize(
    ("held", "offered", "wins"),
    [
        ({"offset": 5}, {"offset": 5, "last_ms": 9}, False),
        ({"offset": 5}, {"offset": 6}, True),
        ({"offset": 5, "items_offset": 2}, {"offset": 6, "items_offset": 1}, False),
        ({"offset": 5, "items_offset": 2}, {"offset": 5, "items_offset": 3}, True),
        ({"items_offset": 2}, {"last_ms": 9}, False),
        ({"last_ms": 9}, {"offset": 0}, True),
        ({"last_ms": 9}, {"last_ms": 9}, False),
        ({"last_ms": 8}, {"last_ms": 9}, True),
        ({"partition": 1, "offset": 900, "last_ms": 8}, {"offset": 1, "last_ms": 9}, True),
        ({"partition": 1, "offset": 1, "last_ms": 9}, {"offset": 900, "last_ms": 9}, False),
        # Offsets past 32 bits.
        ({"offset": 1 << 40}, {"offset": (1 << 40) + 1}, True),
        ({"offset": 1 << 40}, {"offset": 7}, False),
    ],
)
def test_the_stamp_decides_whatever_feast_is_asked_to_write(
    store: FeatureStore,
    clean_redis: str,
    held: dict[str, int],
    offered: dict[str, int],
    wins: bool,
) -> None:
    row = bytearray(a_row(ITEM_STATE, **offered))
    row[-1] ^= 1  # an attribute: rows of one stamp differ too
    stream_writes(clean_redis, ITEM_STATE, "i9", a_row(ITEM_STATE, **held))

    store.write_to_online_store(
        "item_state",
        pd.DataFrame(
            # Far ahead of the stored row by the clock, which decides nothing.
            {
                "item_id": ["i9"],
                "state": [row],
                "event_timestamp": [datetime(2040, 1, 1, tzinfo=UTC)],
            }
        ),
    )

    assert (stored(clean_redis, ITEM_STATE, "i9").tobytes() == bytes(row)) is wins


def test_feasts_own_materialize_keeps_to_the_rule(store: FeatureStore, clean_redis: str) -> None:
    ahead = a_row(USER_STATE, offset=6, last_ms=START_MS)
    stream_writes(clean_redis, USER_STATE, "ann", ahead)
    start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (START_MS, LATER_MS))

    store.materialize(start, end, feature_views=["user_state"])

    assert stored(clean_redis, USER_STATE, "ann").tobytes() == ahead
    assert stored(clean_redis, USER_STATE, "bob")["offset"][0] == 3


def test_a_push_keeps_to_the_rule(store: FeatureStore, clean_redis: str) -> None:
    stream_writes(clean_redis, USER_STATE, "ann", a_row(USER_STATE, offset=6))
    rows = {name: a_row(USER_STATE, offset=5, last_ms=9) for name in ("ann", "bob")}
    frame = pd.DataFrame(
        {
            "user_id": list(rows),
            "state": list(rows.values()),
            "event_timestamp": [datetime(2040, 1, 1, tzinfo=UTC)] * 2,
        }
    )

    store.push("user_state_push", frame)

    assert stored(clean_redis, USER_STATE, "ann")["offset"][0] == 6
    assert stored(clean_redis, USER_STATE, "bob")["offset"][0] == 5


def test_a_row_of_another_layout_is_left_alone(store: FeatureStore, clean_redis: str) -> None:
    longer = CATEGORY_STATE.value_head + a_row(CATEGORY_STATE) + b"!"
    with redis.Redis.from_url(clean_redis) as client:
        client.hset(entity_key(CATEGORY_STATE, "war"), CATEGORY_STATE.field, longer)
    frame = pd.DataFrame(
        {
            "category": ["war"],
            "state": [a_row(CATEGORY_STATE, offset=9)],
            "event_timestamp": [datetime(2040, 1, 1, tzinfo=UTC)],
        }
    )

    store.write_to_online_store("category_state", frame)

    with pytest.raises(SpecMismatch, match="Not read"):
        stored(clean_redis, CATEGORY_STATE, "war")


def test_what_is_missing_is_named(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Run `python -m pipelines.features backfill`"):
        materialize(store, tmp_path / "none", until_ms=LATER_MS, step=nobody_hears)
    with pytest.raises(InvalidRequest, match="view other has no packed rows"):
        StampedOnlineStore().online_write_batch(
            store.config,
            FeatureView(name="other", source=store.get_feature_view("user_state").batch_source),
            [],
            None,
        )


def test_rows_survive_the_trip(store: FeatureStore, clean_redis: str, offline: Path) -> None:
    materialize(store, offline, until_ms=LATER_MS, step=nobody_hears)

    found = store.get_online_features(
        features=["user_state:state"], entity_rows=[{"user_id": "bob"}, {"user_id": "cy"}]
    ).to_dict()["state"]

    assert found[0] == stored(clean_redis, USER_STATE, "bob").tobytes()
    assert found[1] is None
    assert np.frombuffer(found[0], USER_STATE.dtype)["session_last_ms"][0] == START_MS + 10
