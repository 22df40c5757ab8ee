"""The point-in-time join equals looking at every row of the history, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.features.asof import History, asof_join
from rankstream.errors import InvalidInput

START = datetime(2026, 9, 1, tzinfo=UTC)
IDS = st.sampled_from(["ann", "bob", "o'brien", 'a "quoted" id', ""])
SECONDS = st.integers(0, 12)

# key, second, second it was created, value
Held = tuple[str | None, int, int, int | None]
# key, second
Asked = tuple[str | None, int]


def naive(asked: Asked, held: list[Held], ttl_s: int) -> int | None:
    """The value of the newest row of the key at the time, the last created of equally new."""
    key, now = asked
    seen = [row for row in held if row[0] == key and key is not None and row[1] <= now]
    if not seen:
        return None
    newest = max(seen, key=lambda row: (row[1], row[2]))
    if ttl_s and now - newest[1] > ttl_s:
        return None
    return newest[3]


def a_history(folder: Path, held: list[Held], ttl_s: int, *, files: int = 2) -> History:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.parquet"):
        old.unlink()
    for k in range(files):
        rows = held[k::files]
        table = {
            "key": pa.array([row[0] for row in rows], pa.string()),
            "at": pa.array(
                [START + timedelta(seconds=row[1]) for row in rows], pa.timestamp("ms", "UTC")
            ),
            "made": pa.array([row[2] for row in rows], pa.int64()),
            "value": pa.array([row[3] for row in rows], pa.int64()),
        }
        pq.write_table(pa.table(table), folder / f"{k}.parquet")
    return History(
        path=f"{folder}/*.parquet",
        keys={"key": "who"},
        time="at",
        features={"value": "view__value"},
        ttl=timedelta(seconds=ttl_s),
        created="made",
    )


def entities(asked: list[Asked]) -> pa.Table:
    times = [START + timedelta(seconds=second) for _, second in asked]
    return pa.table(
        {
            "who": pa.array([key for key, _ in asked], pa.string()),
            "when": pa.array(times, pa.timestamp("us", "UTC")),
            "n": list(range(len(asked))),
        }
    )


@given(
    held=st.lists(
        st.tuples(st.none() | IDS, SECONDS, st.integers(0, 10**6), st.none() | st.integers(0, 99)),
        max_size=25,
        unique_by=lambda row: (row[0], row[1], row[2]),
    ),
    asked=st.lists(st.tuples(st.none() | IDS, SECONDS), max_size=12),
    ttl_s=st.sampled_from([0, 1, 3]),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_row_gets_what_a_look_at_every_row_gives(
    tmp_path: Path, held: list[Held], asked: list[Asked], ttl_s: int
) -> None:
    history = a_history(tmp_path / "history", held, ttl_s)

    joined = asof_join(entities(asked), "when", [history])

    assert joined["n"].to_pylist() == list(range(len(asked)))
    assert joined["view__value"].to_pylist() == [naive(row, held, ttl_s) for row in asked]


def test_histories_with_other_keys_are_joined_side_by_side(tmp_path: Path) -> None:
    users = a_history(tmp_path / "users", [("ann", 0, 0, 1), ("ann", 5, 0, 2)], 0)
    pairs = tmp_path / "pairs.parquet"
    stamp = pa.array([START], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"a": ["ann"], "b": ["war"], "at": stamp, "v": [7.5]}), pairs)
    both = History(str(pairs), {"a": "who", "b": "genre"}, "at", {"v": "pair"})
    asked: dict[str, Any] = {
        "who": ["ann", "ann", "bob"],
        "genre": ["war", "noir", "war"],
        "when": [START.replace(tzinfo=None) + timedelta(seconds=4)] * 3,
    }

    joined = asof_join(pa.table(asked), "when", [users, both])

    assert joined["view__value"].to_pylist() == [1, 1, None]
    assert joined["pair"].to_pylist() == [7.5, None, None]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    history = a_history(tmp_path / "history", [], 0)
    asked = entities([("ann", 1)])

    with pytest.raises(InvalidInput, match=r"no column 'at', or nulls in it"):
        asof_join(asked, "at", [history])
    with pytest.raises(InvalidInput, match=r"history .*none.*backfill"):
        asof_join(asked, "when", [History(f"{tmp_path}/none/*.parquet", {}, "at", {})])
    with pytest.raises(InvalidInput, match="who"):
        asof_join(asked.drop_columns("who"), "when", [history])
