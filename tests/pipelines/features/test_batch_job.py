"""The command: days that are due become folders, once; a log that is not there is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.features import batch
from pipelines.features.batch_job import Engine, Made, duckdb_engine, run_batch
from pipelines.features.replay import Windows
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import Event
from rankstream.errors import Conflict, InvalidInput, InvalidRequest
from rankstream.features import spec
from tests.parity.events import START_MS, an_event
from tests.pipelines.features.test_lake import a_lake

# Ibis 12 calls it, DuckDB 2 has another name for it.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

DAY_MS = 86_400_000
MIDNIGHT_MS = START_MS // DAY_MS * DAY_MS + DAY_MS  # the first after the start
FIRST, SECOND = date(2023, 11, 15), date(2023, 11, 16)


def at(kind: str, n: int, time_ms: int, **fields: Any) -> Event:
    return an_event(kind, n, after_ms=time_ms - START_MS, **fields)


def three_days() -> list[Event]:
    """A slate late on the first day, bought on the second, and a visit on the third."""
    shown: dict[str, Any] = {"request_id": "r1", "category": "war"}
    evening_ms = MIDNIGHT_MS + DAY_MS - 1
    return [
        at("impression", 1, evening_ms, **shown, position=2),
        at("click", 2, evening_ms + 1_800_000, **shown),
        at("purchase", 3, evening_ms + DAY_MS, **shown, value=2.5),
        at("purchase", 4, evening_ms + DAY_MS + 1, **shown, value=9.0),
        at("impression", 5, MIDNIGHT_MS + 5, request_id="r2", category="new"),
        at("visit", 6, MIDNIGHT_MS + 2 * DAY_MS + DAY_MS + 600_000, user="bob"),
    ]


@contextmanager
def an_engine(folder: Path) -> Iterator[Engine]:
    folder.mkdir(exist_ok=True)
    with duckdb_engine(folder, memory_gb=1, threads=1) as engine:
        yield engine


def made(
    root: Path,
    lake: Path,
    *,
    windows: Windows | None = None,
    from_date: date | None = FIRST,
    until_date: date | None = None,
) -> list[Made]:
    scratch = root / f"scratch{len(list(root.iterdir()))}"
    with an_engine(scratch) as engine:
        return run_batch(
            engine,
            lake,
            root / "out",
            from_date=from_date,
            until_date=until_date,
            windows=windows or Windows(),
            limits=TimeLimits(),
            step=lambda what, done, total: None,
        )


def rows(folder: Path) -> list[dict[str, object]]:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def the_lake(root: Path, events: list[Event]) -> Path:
    return a_lake(root / "lake", events, append_ms=MIDNIGHT_MS + 9 * DAY_MS)


def test_days_that_are_due_are_written(tmp_path: Path) -> None:
    lake = the_lake(tmp_path, three_days())

    done = made(tmp_path, lake)

    assert [(m.table, m.date) for m in done if m.table in ("user", "rows")] == [
        ("user", "2023-11-15"),
        ("rows", "2023-11-15"),
        ("user", "2023-11-16"),
        ("rows", "2023-11-16"),
        ("user", "2023-11-17"),
        ("user", "2023-11-18"),
    ]
    found = {row["request_id"]: row for row in rows(tmp_path / "out/labels/date=2023-11-15")}
    assert found["r1"] | {"clicked": 1, "purchased": 1, "value_micros": 2_500_000} == found["r1"]
    assert (found["r2"]["clicked"], found["r2"]["value_micros"]) == (0, 0)
    assert [m.rows for m in done if (m.table, m.date) == ("rows", "2023-11-15")] == [2]


def test_counts_are_integers_and_features_float32(tmp_path: Path) -> None:
    made(tmp_path, the_lake(tmp_path, three_days()), until_date=FIRST)

    for table in (*batch.ENTITIES, "labels", "rows"):
        (file,) = (tmp_path / "out" / table / f"date={FIRST}").glob("*.parquet")
        schema = pq.read_schema(file)
        text = {*batch.KEY, *batch.NAMED}
        numbers = {field.name: str(field.type) for field in schema if field.name not in text}
        own = {f.name for f in spec.FEATURES} & set(schema.names)
        assert {numbers[name] for name in own} <= {"float"}
        assert {kind for name, kind in numbers.items() if name not in own} <= {
            "int64",
            "int32",
            "int8",
        }


def test_rows_hold_what_their_day_began_with(tmp_path: Path) -> None:
    again = at("impression", 7, MIDNIGHT_MS + DAY_MS + 60_000, request_id="r3", category="war")

    made(tmp_path, the_lake(tmp_path, [*three_days(), again]))

    (row,) = rows(tmp_path / "out/rows/date=2023-11-16")
    # The first day's impressions, and not the click and the impression of the day itself.
    assert row["user_ctr_7d"] == pytest.approx((0 + 3.0) / (2 + 10.0))
    assert row["category_log_impressions"] == pytest.approx(0.6931472)
    for first in rows(tmp_path / "out/rows/date=2023-11-15"):
        defaults = {f.name: f.default for f in spec.FEATURES if f.name in first}
        assert len(defaults) == 14 * len(batch.ENTITIES)
        assert {name: first[name] for name in defaults} == pytest.approx(defaults)


def test_a_second_run_writes_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    lake = the_lake(tmp_path, three_days())
    first = made(tmp_path, lake)
    lost = tmp_path / "out/item/date=2023-11-16"
    # What a run that was killed leaves.
    lost.rename(lost.with_name(f".{lost.name}"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/date=*")}

    second = made(tmp_path, lake)

    assert [(m.table, m.date) for m in second] == [("item", "2023-11-16")]
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/*date=*")}
    assert {path: after[path] for path in before} == before
    assert set(after) == {*before, lost}
    assert second[0].rows == next(
        m.rows for m in first if (m.table, m.date) == ("item", "2023-11-16")
    )


def test_a_day_is_not_due_before_the_log_has_passed_it_in_every_partition(tmp_path: Path) -> None:
    events = [*three_days()[:1], at("visit", 9, MIDNIGHT_MS + DAY_MS + 599_999)]

    done = made(tmp_path, the_lake(tmp_path, events))

    assert {m.date for m in done} == {"2023-11-15"}
    assert "labels" not in {m.table for m in done}


def test_how_a_folder_was_made_stands_in_it_and_another_way_is_refused(tmp_path: Path) -> None:
    lake = the_lake(tmp_path, three_days())
    done = made(tmp_path, lake, until_date=FIRST)
    noted = json.loads((tmp_path / "out/rows/date=2023-11-15/_batch.json").read_text())
    assert noted["spec_id"] == spec.SPEC_ID
    assert noted["rows"] == done[-1].rows == 2
    assert (noted["engine"], noted["lake_version"]) == ("duckdb", 0)

    with pytest.raises(Conflict, match=r"conflict: .*date=2023-11-15 was made with"):
        made(tmp_path, lake, windows=Windows(click_window_ms=60_000), until_date=FIRST)


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="events cannot be read"):
        made(tmp_path, tmp_path / "nothing")
    nameless = at("visit", 1, MIDNIGHT_MS).model_copy(update={"user_id": ""})
    with pytest.raises(InvalidInput, match="no event that keeps the contract"):
        made(tmp_path, the_lake(tmp_path, [nameless]))
    (tmp_path / "more").mkdir()
    with pytest.raises(InvalidRequest, match="2023-11-16 is behind the last, 2023-11-15"):
        made(
            tmp_path, the_lake(tmp_path / "more", three_days()), from_date=SECOND, until_date=FIRST
        )
