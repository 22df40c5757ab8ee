"""Compaction, retention, versions: fewer files and days, and not a row or an offset else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.features.lake import read_log
from pipelines.features.upkeep import compact, contents, retain, rows_at, tables_in
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import Conflict, NotFound
from services.features.lake_delta import DeltaLog
from services.features.lake_rows import TABLES
from tests.parity.events import START_MS, an_event

EVENTS = next(table for table in TABLES if table.topic == "events")
DAY_MS = 86_400_000
UNTIL_MS = START_MS + 100 * DAY_MS


def append(log: DeltaLog, offset: int, day: int) -> None:
    event = an_event("visit", offset + 1, after_ms=day * DAY_MS)
    append_ms = START_MS + day * DAY_MS
    record = Record("events", 0, offset, append_ms, b"", encode_batch([event]))
    log.append([record], {0: offset}, {0: offset + 1})


def a_lake(folder: Path, *, days: int = 4, per_day: int = 3) -> DeltaLog:
    """A table of one row per commit."""
    log = DeltaLog(str(folder), EVENTS)
    log.open([0])
    for offset in range(days * per_day):
        append(log, offset, offset // per_day)
    return log


def offsets(lake: Path) -> list[int]:
    return sorted(read_log(lake, until_ms=UNTIL_MS, limits=TimeLimits()).offset.tolist())


def files(lake: Path) -> int:
    return len(list((lake / "events").rglob("*.parquet")))


def age(lake: Path, hours: int) -> None:
    """Make every file on disk older."""
    for path in (lake / "events").rglob("*.parquet"):
        then = path.stat().st_mtime - 3600 * hours
        os.utime(path, (then, then))


def table_of(lake: Path) -> DeltaTable:
    ((_, table),) = tables_in(lake, "events")
    return table


def test_a_table_says_what_it_holds(tmp_path: Path) -> None:
    a_lake(tmp_path)

    (found,) = [contents(name, table) for name, table in tables_in(tmp_path)]

    assert (found.table, found.version, found.rows, found.files) == ("events", 12, 12, 12)
    assert (found.from_date, found.until_date) == ("2023-11-14", "2023-11-17")
    assert found.bytes > 1_000


def test_compaction_leaves_a_file_per_hour_and_every_row(tmp_path: Path) -> None:
    log = a_lake(tmp_path)

    done = compact("events", table_of(tmp_path))

    assert (done.removed, done.added) == (12, 4)
    assert offsets(tmp_path) == list(range(12))
    append(log, 12, 4)
    assert log.open([0]) == {0: 13}
    assert compact("events", table_of(tmp_path)).removed == 0


def test_retention_drops_whole_old_days_and_then_their_files(tmp_path: Path) -> None:
    log = a_lake(tmp_path)
    orphan = tmp_path / "events" / "date=2023-11-17" / "written-and-never-committed.parquet"
    orphan.write_bytes(b"half a file")
    age(tmp_path, hours=3)
    now_ms = START_MS + 3 * DAY_MS + 1

    done = retain("events", table_of(tmp_path), days=1, now_ms=now_ms, keep_hours=2)

    # Files that leave the table now are kept for readers of the version before.
    assert (done.dropped, done.deleted) == (6, 1)
    assert offsets(tmp_path) == list(range(6, 12))
    assert not orphan.exists()
    assert len(rows_at(table_of(tmp_path), 12, 100)) == 12
    append(log, 12, 3)
    assert log.open([0]) == {0: 13}
    later = retain("events", table_of(tmp_path), days=1, now_ms=now_ms, keep_hours=0)
    assert (later.dropped, later.deleted) == (0, 6)
    assert files(tmp_path) == 7


def test_a_version_that_was_vacuumed_is_named(tmp_path: Path) -> None:
    a_lake(tmp_path)
    compact("events", table_of(tmp_path))
    retain("events", table_of(tmp_path), days=9_999, now_ms=UNTIL_MS, keep_hours=0)

    with pytest.raises(NotFound, match=r"version 3: .* Its files are gone"):
        rows_at(table_of(tmp_path), 3, 10)
    with pytest.raises(NotFound, match="version 99"):
        rows_at(table_of(tmp_path), 99, 10)


def test_versions_are_read_as_they_were(tmp_path: Path) -> None:
    a_lake(tmp_path)

    rows = rows_at(table_of(tmp_path), 5, 10)

    assert sorted(int(str(row["offset"])) for row in rows) == [0, 1, 2, 3, 4]
    assert len(rows_at(table_of(tmp_path), None, 7)) == 7


def test_what_was_read_up_to_some_offsets_is_found_again(tmp_path: Path) -> None:
    log = a_lake(tmp_path)
    before = read_log(tmp_path, until_ms=START_MS + 2 * DAY_MS, limits=TimeLimits())
    append(log, 12, 0)  # late: of a time that was read
    compact("events", table_of(tmp_path))
    retain("events", table_of(tmp_path), days=9_999, now_ms=UNTIL_MS, keep_hours=0)

    again = read_log(
        tmp_path, until_ms=START_MS + 2 * DAY_MS, limits=TimeLimits(), before=before.ends()
    )

    assert before.ends() == {0: 9}
    assert again.columns.event_id == before.columns.event_id
    assert offsets(tmp_path) == list(range(13))


def test_a_table_without_days_stays_whole(tmp_path: Path) -> None:
    a_lake(tmp_path, days=1, per_day=1)
    rows = table_of(tmp_path).to_pyarrow_table()
    write_deltalake(str(tmp_path / "catalogue"), rows)

    done = [
        retain(name, table, days=1, now_ms=UNTIL_MS, keep_hours=0)
        for name, table in tables_in(tmp_path)
    ]

    assert [(one.table, one.dropped) for one in done] == [("catalogue", 0), ("events", 1)]
    assert contents(*tables_in(tmp_path, "catalogue")[0]).rows == 1


def test_a_lake_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no table at all"):
        tables_in(tmp_path)
    with pytest.raises(NotFound, match="has no table other"):
        tables_in(tmp_path, "other")


def test_a_table_that_cannot_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    a_lake(tmp_path, days=1)
    table = table_of(tmp_path)
    for path in (tmp_path / "events").rglob("*.parquet"):
        path.write_bytes(b"no parquet any more")

    with pytest.raises(Conflict, match="The table is as its writers left it"):
        compact("events", table)

    assert table_of(tmp_path).version() == 3
