"""The lake: rows as they were produced, each record once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch, encode_tick
from rankstream.contracts.events import Impression, UserUpdate
from rankstream.contracts.ids import new_id
from rankstream.errors import Conflict, DependencyUnavailable, Fenced
from rankstream.pb import events_pb2 as pb
from services.features.lake_columns import LakeTable, Rows
from services.features.lake_delta import DeltaLog, app_id
from services.features.lake_rows import TABLES, TICK, event_rows, served_rows

EVENTS, _, SERVED = TABLES
APPEND_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z


def a_record(value: bytes, *, offset: int = 0, partition: int = 1, topic: str = "events") -> Record:
    return Record(topic, partition, offset, APPEND_MS, b"", value)


def an_impression(user: str, item: str) -> Impression:
    return Impression(
        event_id=new_id(),
        user_id=user,
        item_id=item,
        request_id="r",
        event_time_ms=5,
        position=3,
        category="c",
    )


def test_events_keep_every_field_and_their_place_in_the_log() -> None:
    first = [an_impression("ann", "i1"), an_impression("bob", "i2")]
    update = UserUpdate(
        event_id=new_id(), user_id="cy", event_time_ms=6, attributes={"age": 33.0, "city": "Oslo"}
    )
    records = [
        a_record(encode_batch(first), offset=7),
        a_record(b"\xff garbage", offset=8),
        a_record(encode_batch([update]), offset=9),
    ]

    rows = event_rows(records)

    found = rows.table.to_pylist()
    assert rows.skipped == 1
    assert [(row["offset"], row["row"]) for row in found] == [(7, 0), (7, 1), (9, 0)]
    assert [row["user_id"] for row in found] == ["ann", "bob", "cy"]
    assert [row["item_id"] for row in found] == ["i1", "i2", ""]
    assert [row["position"] for row in found] == [3, 3, 0]
    assert [row["attributes"] for row in found] == ["", "", '{"age": 33.0, "city": "Oslo"}']
    assert {(row["date"], row["hour"]) for row in found} == {("2026-09-21", 14)}


def test_slates_become_a_row_per_slot_with_its_vector() -> None:
    vectors = np.arange(6, dtype="<f4").reshape(2, 3)
    slate = pb.ServedSlate(
        request_id="r",
        user_id="ann",
        item_id=["i1", "i2"],
        propensity=[1.0, 0.5],
        features=vectors.tobytes(),
        user_stamp=pb.Stamp(partition=1, offset=9),
        item_stamp=[pb.Stamp(partition=0, offset=4), pb.Stamp(partition=2, offset=5)],
        degraded=["retrieval_timeout"],
    )

    rows = served_rows([a_record(slate.SerializeToString(), topic="served")])

    found = rows.table.to_pylist()
    assert [row["features"] for row in found] == vectors.tolist()
    assert [row["propensity"] for row in found] == [1.0, 0.5]
    assert [row["item_stamp"]["offset"] for row in found] == [4, 5]
    assert [row["category_stamp"] for row in found] == [None, None]
    assert [row["logit"] for row in found] == [None, None]
    assert {tuple(row["degraded"]) for row in found} == {("retrieval_timeout",)}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.topic)
def test_records_that_are_all_broken_make_an_empty_portion(
    table: LakeTable, tmp_path: Path
) -> None:
    log = DeltaLog(str(tmp_path), table)
    log.open([1])

    written = log.append([a_record(b"\xff", topic=table.topic)], {1: 0}, {1: 1})

    assert written == (0, 1)
    assert log.open([1]) == {1: 1}


def test_the_table_says_where_to_go_on(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), EVENTS)
    assert log.open([0, 1]) == {0: 0, 1: 0}
    records = [
        a_record(encode_batch([an_impression("ann", "i1")]), offset=0),
        a_record(encode_tick(new_id(), 9), offset=1),
    ]

    assert log.append(records, {1: 0}, {1: 2}) == (1, 0)

    again = DeltaLog(str(tmp_path), EVENTS)
    assert again.open([0, 1]) == {0: 0, 1: 2}
    assert again.rows() == 1
    table = DeltaTable(str(tmp_path / "events"))
    assert table.to_pyarrow_table().num_rows == 2
    assert table.metadata().partition_columns == ["date", "hour"]
    assert table.transaction_version(app_id("events", 1)) == 2


def test_who_was_replaced_adds_no_row(tmp_path: Path) -> None:
    zombie, owner = DeltaLog(str(tmp_path), EVENTS), DeltaLog(str(tmp_path), EVENTS)
    zombie.open([1])
    owner.open([1])
    record = a_record(encode_batch([an_impression("ann", "i1")]))
    owner.append([record], {1: 0}, {1: 1})

    with pytest.raises(Fenced, match="partition 1 is at 1, expected 0"):
        zombie.append([record], {1: 0}, {1: 1})

    owner.open([1])
    assert owner.rows() == 1


def test_two_writers_of_other_partitions_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = DeltaLog(str(tmp_path), EVENTS), DeltaLog(str(tmp_path), EVENTS)
    one.open([0])
    two.open([1])
    value = encode_batch([an_impression("ann", "i1")])

    one.append([a_record(value, partition=0)], {0: 0}, {0: 1})
    two.append([a_record(value, partition=1)], {1: 0}, {1: 1})
    one.append([a_record(value, partition=0, offset=1)], {0: 1}, {0: 2})

    assert one.open([0, 1]) == {0: 2, 1: 1}
    assert one.rows() == 3


def with_column(name: str) -> LakeTable:
    """The table `events` of a version that knows one column more."""
    schema = EVENTS.schema.append(pa.field(name, pa.string()))

    def rows_of(records: Sequence[Record]) -> Rows:
        rows = event_rows(records)
        values = pa.array(["new"] * rows.table.num_rows, pa.string())
        return Rows(rows.table.append_column(name, values), rows.skipped)

    return replace(EVENTS, schema=schema, rows_of=rows_of)


def test_versions_that_know_more_and_fewer_columns_write_one_table(tmp_path: Path) -> None:
    older, newer = DeltaLog(str(tmp_path), EVENTS), DeltaLog(str(tmp_path), with_column("campaign"))
    value = encode_batch([an_impression("ann", "i1")])
    older.open([0, 1])
    older.append([a_record(value, partition=0)], {0: 0}, {0: 1})

    newer.open([1])
    newer.append([a_record(value, partition=1)], {1: 0}, {1: 1})
    older.append([a_record(value, partition=0, offset=1)], {0: 1}, {0: 2})
    older.open([0])

    found = DeltaTable(str(tmp_path / "events")).to_pyarrow_table().to_pylist()
    assert sorted((row["partition"], row["offset"], row["campaign"]) for row in found) == [
        *((0, 0, None), (0, 1, None)),
        (1, 0, "new"),
    ]
    assert {row["user_id"] for row in found} == {"ann"}


def test_a_table_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    rows = event_rows([a_record(encode_batch([an_impression("ann", "i1")]))]).table
    write_deltalake(str(tmp_path / "events"), rows.select(["user_id", "date"]))
    before = DeltaTable(str(tmp_path / "events")).version()

    with pytest.raises(Conflict, match=r"partitioned by \(\) .* Move the folder away"):
        DeltaLog(str(tmp_path), EVENTS).open([0])

    assert DeltaTable(str(tmp_path / "events")).version() == before


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    schema = EVENTS.schema.set(
        EVENTS.schema.get_field_index("value"), pa.field("value", pa.string())
    )
    DeltaLog(str(tmp_path), replace(EVENTS, schema=schema)).open([0])

    with pytest.raises(Conflict, match=r"other types in columns \['value'\]"):
        DeltaLog(str(tmp_path), EVENTS).open([0])


def test_a_full_or_missing_disk_commits_nothing_and_is_named(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path / "lake"), EVENTS)
    log.open([0])
    record = a_record(encode_batch([an_impression("ann", "i1")]), partition=0)
    shutil.rmtree(tmp_path / "lake")
    (tmp_path / "lake").write_text("no folder any more")

    with pytest.raises(DependencyUnavailable, match="Nothing is committed"):
        log.append([record], {0: 0}, {0: 1})
    with pytest.raises(DependencyUnavailable, match="Nothing is committed"):
        log.open([0])


def test_what_was_written_and_not_committed_is_in_no_version(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), EVENTS)
    log.open([0])
    records = [
        a_record(encode_batch([an_impression("ann", f"i{offset}")]), partition=0, offset=offset)
        for offset in range(2)
    ]
    log.append(records[:1], {0: 0}, {0: 1})
    version = DeltaTable(str(tmp_path / "events")).version()
    log.append(records[1:], {0: 1}, {0: 2})
    # A crash between the data and the commit: the file is there, the commit is not.
    (tmp_path / "events" / "_delta_log" / f"{version + 1:020}.json").unlink()

    again = DeltaLog(str(tmp_path), EVENTS)

    assert again.open([0]) == {0: 1}
    again.append(records[1:], {0: 1}, {0: 2})
    found = DeltaTable(str(tmp_path / "events")).to_pyarrow_table().to_pylist()
    assert sorted(row["item_id"] for row in found) == ["i0", "i1"]
    assert len(list((tmp_path / "events").rglob("*.parquet"))) == 3


def test_compaction_beside_a_writer_changes_no_row_and_no_offset(tmp_path: Path) -> None:
    log, keeper = DeltaLog(str(tmp_path), EVENTS), DeltaLog(str(tmp_path), EVENTS)
    log.open([0])
    keeper.open([0])
    for offset in range(5):
        value = encode_batch([an_impression("ann", f"i{offset}")])
        log.append([a_record(value, partition=0, offset=offset)], {0: offset}, {0: offset + 1})

    DeltaTable(str(tmp_path / "events")).optimize.compact()
    tick = a_record(encode_tick(new_id(), 9), partition=0, offset=5)
    log.append([tick], {0: 5}, {0: 6})

    table = DeltaTable(str(tmp_path / "events"))
    assert keeper.open([0]) == {0: 6}
    assert keeper.rows() == 5
    assert sorted(table.to_pyarrow_table()["offset"].to_pylist()) == [0, 1, 2, 3, 4, 5]
    assert table.to_pyarrow_table()["kind"].to_pylist().count(TICK) == 1
    assert len(table.file_uris()) == 2


def test_offsets_outlive_a_checkpoint_and_the_clearing_of_the_log(tmp_path: Path) -> None:
    log = DeltaLog(str(tmp_path), EVENTS)
    log.open([0, 1])
    value = encode_batch([an_impression("ann", "i1")])
    log.append([a_record(value, partition=1)], {1: 0}, {1: 1})
    for offset in range(3):
        record = a_record(value, partition=0, offset=offset)
        log.append([record], {0: offset}, {0: offset + 1})

    DeltaTable(str(tmp_path / "events")).create_checkpoint()
    for commit in (tmp_path / "events" / "_delta_log").glob("*.json"):
        commit.unlink()

    assert DeltaLog(str(tmp_path), EVENTS).open([0, 1]) == {0: 3, 1: 1}
