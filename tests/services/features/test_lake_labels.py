"""The labels table: a row per label as it stands, whatever is sent twice or cut in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from rankstream.adapters.kafka import Record
from rankstream.contracts.high_water import HighWater
from rankstream.errors import Fenced
from rankstream.pb import events_pb2 as pb
from services.features.lake_delta import DeltaLog
from services.features.lake_labels import label_changes, upserts
from services.features.lake_rows import TABLES
from tests.services.features.label_log import Row, a_label_log, a_label_record

LABELS = next(table for table in TABLES if table.topic == "labels")
ABSENT, PROVISIONAL, FINAL = pb.LABEL_ABSENT, pb.LABEL_PROVISIONAL, pb.LABEL_FINAL


def rows_in(lake: Path, version: int | None = None) -> list[Row]:
    table = DeltaTable(str(lake / "labels"), version=version).to_pyarrow_table()
    names = ("partition", "user_id", "item_id", "impression_time_ms", "status", "clicked")
    columns = [table[name].to_pylist() for name in (*names, "source_offset")]
    return sorted(zip(*columns, strict=True))


def append(log: DeltaLog, records: list[Record], at: dict[int, int]) -> dict[int, int]:
    """Append one portion; where the partitions stand then."""
    after = at | {record.partition: record.offset + 1 for record in records}
    moved = {partition for partition in after if after[partition] != at[partition]}
    log.append(records, {p: at[p] for p in moved}, {p: after[p] for p in moved})
    return after


def test_a_change_says_what_a_label_becomes() -> None:
    record = a_label_record([("i1", 5, ABSENT, PROVISIONAL, 1)], offset=7, source_offset=11)

    rows = label_changes([record])

    (row,) = rows.table.to_pylist()
    assert (row["user_id"], row["item_id"], row["request_id"]) == ("ann", "i1", "r")
    assert (row["offset"], row["source_offset"], row["watermark_ms"]) == (7, 11, 3)
    assert (row["new_status"], row["new_clicked"], row["new_value_micros"]) == (1, 1, 1_000)
    assert (row["impression_time_ms"], row["position"], row["date"]) == (5, 4, "2026-09-21")


def test_changes_of_a_run_that_does_not_follow_are_dropped_and_the_rest_collapse() -> None:
    shown, clicked = ("i1", 5, ABSENT, PROVISIONAL, 0), ("i1", 5, PROVISIONAL, PROVISIONAL, 1)
    other = [clicked, ("i2", 6, PROVISIONAL, FINAL, 0)]
    records = [
        a_label_record([("i0", 5, ABSENT, PROVISIONAL, 0)], offset=0, source_offset=10),
        a_label_record([shown], offset=1, first_offset=11, source_offset=14),
        a_label_record([], offset=2, source_offset=15),
        a_label_record([("i9", 5, ABSENT, FINAL, 0)], offset=3, first_offset=13, source_offset=20),
        a_label_record(other, offset=4, source_offset=16),
        a_label_record(other, offset=5, source_offset=16),
    ]
    mark = HighWater({0: 10})

    found = upserts(label_changes(records, mark).table)

    columns = (found[name].to_pylist() for name in ("item_id", "clicked", "offset", "starts"))
    assert list(zip(*columns, strict=True)) == [("i1", 1, 4, True), ("i2", 0, 4, False)]
    assert mark.offsets() == {0: 16}


def test_a_late_conversion_replaces_the_row_that_it_corrects(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0])
    shown = a_label_record([("i1", 5, ABSENT, PROVISIONAL, 0)], offset=0, source_offset=3)
    at = append(log, [shown], at)
    correction = ("i1", 5, PROVISIONAL, FINAL, 1)
    later = a_label_record([correction], offset=1, first_offset=4, source_offset=9, day=3)

    append(log, [later], at)

    (row,) = DeltaTable(str(tmp_path / "labels")).to_pyarrow_table().to_pylist()
    assert (row["status"], row["clicked"], row["value_micros"]) == (FINAL, 1, 1_000)
    assert (row["source_offset"], row["offset"], row["date"]) == (9, 1, "2026-09-21")
    assert rows_in(tmp_path, version=1) == [(0, "ann", "i1", 5, PROVISIONAL, 0, 3)]


def test_an_impression_after_a_final_label_is_a_row_of_its_own(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0])
    records = [
        a_label_record([("i1", 5, ABSENT, PROVISIONAL, 0)], offset=0, source_offset=0),
        a_label_record([("i1", 5, PROVISIONAL, FINAL, 0)], offset=1, source_offset=1),
        a_label_record([("i1", 99, ABSENT, PROVISIONAL, 1)], offset=2, source_offset=2),
    ]

    append(log, records[1:], append(log, records[:1], at))

    assert rows_in(tmp_path) == [
        (0, "ann", "i1", 5, FINAL, 0, 1),
        (0, "ann", "i1", 99, PROVISIONAL, 1, 2),
    ]


@pytest.mark.parametrize("seed", range(6))
def test_the_table_ends_as_the_log_says_however_it_is_cut(seed: int, tmp_path: Path) -> None:
    wanted = a_label_log(seed, records=80)
    rng = np.random.default_rng(seed)
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0, 1])
    start = 0

    while start < len(wanted.records):
        end = start + int(rng.integers(1, 25))
        at = append(log, wanted.records[start:end], at)
        if rng.random() < 0.3:
            log = DeltaLog(str(tmp_path), LABELS)
            assert log.open([0, 1]) == at
        if rng.random() < 0.2:
            DeltaTable(str(tmp_path / "labels")).optimize.compact()
        start = end

    assert rows_in(tmp_path) == sorted(wanted.rows)
    assert log.rows() == len(wanted.rows)


def test_owners_of_two_partitions_upsert_side_by_side(tmp_path: Path) -> None:
    wanted = a_label_log(3, records=60)
    logs = [DeltaLog(str(tmp_path), LABELS) for _ in range(2)]
    at = [log.open([partition]) for partition, log in enumerate(logs)]

    for start in range(0, len(wanted.records), 7):
        for partition, log in enumerate(logs):
            portion = [r for r in wanted.records[start : start + 7] if r.partition == partition]
            at[partition] = append(log, portion, at[partition])

    assert rows_in(tmp_path) == sorted(wanted.rows)


def test_a_zombie_corrects_no_label(tmp_path: Path) -> None:
    zombie, owner = DeltaLog(str(tmp_path), LABELS), DeltaLog(str(tmp_path), LABELS)
    at = zombie.open([0])
    owner.open([0])
    shown = a_label_record([("i1", 5, ABSENT, PROVISIONAL, 0)], offset=0, source_offset=0)
    append(owner, [shown], at)

    with pytest.raises(Fenced, match="partition 0 is at 1, expected 0"):
        append(zombie, [shown], at)

    assert len(rows_in(tmp_path)) == 1


def test_labels_that_are_final_are_not_read_again(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0])
    for offset in range(3):
        item = (f"i{offset}", offset, ABSENT, FINAL, 0)
        at = append(log, [a_label_record([item], offset=offset, source_offset=offset)], at)
    files = set(DeltaTable(str(tmp_path / "labels")).file_uris())

    other = ("i1", 1, ABSENT, PROVISIONAL, 0)
    append(log, [a_label_record([other], offset=3, source_offset=3)], at)

    table = DeltaTable(str(tmp_path / "labels"))
    assert files < set(table.file_uris())
    metrics = table.history(1)[0]["operationMetrics"]
    assert int(metrics["num_target_files_scanned"]) == 0


def test_a_commit_writes_what_is_open_and_not_what_is_final(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0])
    open_at_once = 3

    for n in range(40):
        changes = [(f"i{n}", n, ABSENT, PROVISIONAL, 0)]
        if n >= open_at_once:
            closed = n - open_at_once
            changes.append((f"i{closed}", closed, PROVISIONAL, FINAL, 0))
        at = append(log, [a_label_record(changes, offset=n, source_offset=n)], at)

    assert DeltaTable(str(tmp_path / "labels")).to_pyarrow_table().num_rows == 40
    written = [rows_added(path) for path in (tmp_path / "labels" / "_delta_log").glob("*.json")]
    assert 0 < max(written) <= open_at_once + 2


def test_compaction_puts_the_files_of_our_partitions_together_and_changes_no_row(
    tmp_path: Path,
) -> None:
    log = DeltaLog(str(tmp_path), LABELS)
    at = log.open([0, 1])
    for n in range(6):
        for partition in (0, 1):
            changes = [(f"i{n}", n, ABSENT, FINAL, 0)]
            record = a_label_record(changes, offset=n, source_offset=n, partition=partition)
            at = append(log, [record], at)
    before = rows_in(tmp_path)

    assert log.compact([0]) == 6
    assert log.compact([0]) == 0

    table = DeltaTable(str(tmp_path / "labels"))
    assert rows_in(tmp_path) == before
    assert len(table.file_uris()) == 1 + 6
    assert DeltaLog(str(tmp_path), LABELS).open([0, 1]) == at


def rows_added(commit: Path) -> int:
    """Rows of the files that a commit adds."""
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    added = [json.loads(action["add"]["stats"]) for action in actions if "add" in action]
    return sum(stats["numRecords"] for stats in added)
