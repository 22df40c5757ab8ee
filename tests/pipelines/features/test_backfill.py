"""A backfill holds, at every moment, what training and the live stream hold then."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.features import backfill as module
from pipelines.features.backfill import backfill
from pipelines.features.lake import Logged
from pipelines.features.replay import ItemFacts, TrainingRows, Windows, training_rows
from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE, USER_STATE, VIEWS, View
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.contracts.events import Event, Impression
from rankstream.features import spec
from rankstream.features.rows import Rows
from tests.parity.events import START_MS, an_event
from tests.parity.test_training_rows import ITEMS, a_log

with warnings.catch_warnings():
    # Feast's and its dependencies' own, at import.
    warnings.simplefilter("ignore")
    from feast import FeatureStore

    from pipelines.features.store import apply

NOWHERE = "redis://127.0.0.1:1/0"  # nothing here reads or writes it
FACTS = {item.item_id: ItemFacts(item.category, item.attributes) for item in ITEMS}
HOUR_MS = 3_600_000


def nobody_hears(what: str, done: int, total: int) -> None:
    """A step."""


def logged(events: list[Event], offsets: list[int] | None = None, partition: int = 2) -> Logged:
    columns = decode_batch(encode_batch(events))
    at = np.array(offsets if offsets is not None else range(len(events)), np.int64)
    return Logged(columns, np.full(len(events), partition, np.int64), at, version=0)


def a_backfill(log: Logged, out: Path, **options: Any) -> dict[str, int]:
    asked: dict[str, Any] = {
        "until_ms": 1 << 45,
        "every_ms": 1,
        "windows": Windows(),
        "step": nobody_hears,
    }
    return backfill(log, FACTS, out, **(asked | options))


def rows_in(out: Path, view: View) -> tuple[list[str], list[int], Rows]:
    """Ids, times from which rows are found, and the rows."""
    table = pq.read_table(out / view.name)
    rows = np.frombuffer(b"".join(table["state"].to_pylist()), view.dtype)
    return (
        table[view.join_key].to_pylist(),
        table["event_timestamp"].cast("int64").to_pylist(),
        rows,
    )


def asked_for(rows: TrainingRows, events: Sequence[Event]) -> pd.DataFrame:
    """The moments of training rows, as Feast takes them."""
    users = [rows.users[user] for user in rows.user.tolist()]
    items = [rows.items[item] for item in rows.item.tolist()]
    shown = {
        (event.user_id, event.item_id, event.event_time_ms): event
        for event in events
        if isinstance(event, Impression)
    }
    impressions = [shown[key] for key in zip(users, items, rows.time_ms.tolist(), strict=True)]
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "query": [impression.query for impression in impressions],
            "location": [impression.location for impression in impressions],
            "category": [FACTS[item].category for item in items],
            "event_timestamp": pd.to_datetime(rows.time_ms, unit="ms", utc=True),
            "as_of_ms": rows.time_ms,
        }
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_historical_features_are_training_rows_bit_for_bit(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_MOMENTS", 50)
    events = a_log(seed)
    log = logged(events)
    until_ms = events[-1].event_time_ms + 86_400_000
    wanted = training_rows(log.columns, FACTS, until_ms=until_ms, windows=Windows())
    a_backfill(log, tmp_path / "rows")
    store: FeatureStore = apply(
        redis_url=NOWHERE, registry=tmp_path / "registry.db", offline=tmp_path / "rows"
    )

    found = store.get_historical_features(
        entity_df=asked_for(wanted, events),
        features=store.get_feature_service("ranker"),
        full_feature_names=True,
    ).to_df()

    names = [f"ranker_features__{name}" for name in spec.NAMES]
    assert len(wanted) > 30
    assert found[names].to_numpy(np.float32).tobytes() == wanted.features.tobytes()
    assert found["item_id"].tolist() == asked_for(wanted, events)["item_id"].tolist()


def test_a_users_row_carries_how_far_the_log_had_come(tmp_path: Path) -> None:
    events = [
        an_event("view", 1, after_ms=0),
        an_event("view", 2, after_ms=5, user="bob"),
        an_event("view", 3, after_ms=10),
        an_event("visit", 4, after_ms=20),
    ]
    # The log has the last two the other way round, and a record of several events.
    log = logged(events, offsets=[7, 7, 12, 9])

    a_backfill(log, tmp_path)

    ids, from_ms, rows = rows_in(tmp_path, USER_STATE)
    found = zip(ids, from_ms, rows["partition"].tolist(), rows["offset"].tolist(), strict=True)
    assert sorted(found) == [
        ("ann", START_MS + 1, 2, 7),
        ("ann", START_MS + 11, 2, 12),
        ("ann", START_MS + 21, 2, 12),
        ("bob", START_MS + 6, 2, 7),
    ]


def test_offsets_of_a_partition_that_a_user_has_left_do_not_count(tmp_path: Path) -> None:
    log = logged([an_event("view", 1), an_event("view", 2, after_ms=10)], offsets=[900, 3])
    log.partition[0] = 5

    a_backfill(log, tmp_path)

    _, _, rows = rows_in(tmp_path, USER_STATE)
    assert list(zip(rows["partition"].tolist(), rows["offset"].tolist(), strict=True)) == [
        *((2, -1), (2, 3)),
    ]


def test_every_hour_keeps_the_last_change_before_it(tmp_path: Path) -> None:
    base_ms = START_MS // HOUR_MS * HOUR_MS - START_MS
    times = [base_ms, base_ms + 5, base_ms + HOUR_MS - 1, base_ms + HOUR_MS]
    log = logged([an_event("view", k + 1, after_ms=time) for k, time in enumerate(times)])

    written = a_backfill(log, tmp_path, every_ms=HOUR_MS)

    _, from_ms, rows = rows_in(tmp_path, USER_STATE)
    views = rows["totals"][:, 2].tolist()
    hour = START_MS // HOUR_MS * HOUR_MS
    assert list(zip(from_ms, views, strict=True)) == [(hour + HOUR_MS, 3), (hour + 2 * HOUR_MS, 4)]
    assert written == {
        "user_state": 2,
        "item_state": 2 + len(FACTS),
        "category_state": 0,
        "query_state": 0,
        "location_state": 0,
    }


def test_an_item_that_nobody_touched_is_found_with_what_is_known_of_it(tmp_path: Path) -> None:
    a_backfill(logged([an_event("visit", 1)]), tmp_path)

    ids, from_ms, rows = rows_in(tmp_path, ITEM_STATE)
    assert ids == sorted(FACTS)
    assert set(from_ms) == {START_MS}
    assert [name.decode() for name in rows["category"]] == [FACTS[name].category for name in ids]
    assert set(rows["offset"].tolist()) == {-1}
    assert rows_in(tmp_path, CATEGORY_STATE)[0] == []


def test_a_second_backfill_replaces_the_first(tmp_path: Path) -> None:
    log = logged([an_event("view", 1)])
    a_backfill(log, tmp_path)

    a_backfill(log, tmp_path)

    assert rows_in(tmp_path, USER_STATE)[0] == ["ann"]
    assert len(list(tmp_path.rglob("*"))) == 2 * len(VIEWS)
