"""The lake: rows as they were produced, each record once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch, encode_tick
from rankstream.contracts.events import Impression, UserUpdate
from rankstream.contracts.ids import new_id
from rankstream.errors import Fenced
from rankstream.pb import events_pb2 as pb
from services.features.lake import DeltaLog, app_id
from services.features.lake_rows import TABLES, event_rows, label_rows, served_rows

EVENTS, LABELS, SERVED = TABLES
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


def test_labels_become_a_row_per_change() -> None:
    batch = pb.LabelBatch(
        source_partition=2,
        source_offset=11,
        strings=["", "ann", "i1", "r"],
        user_id=[1],
        item_id=[2],
        request_id=[3],
        impression_time_ms=[5],
        position=[4],
        old_status=[pb.LABEL_ABSENT],
        new_status=[pb.LABEL_PROVISIONAL],
        old_clicked=[0],
        new_clicked=[1],
        old_purchased=[0],
        new_purchased=[0],
        old_value_micros=[0],
        new_value_micros=[0],
        watermark_ms=3,
    )

    rows = label_rows([a_record(batch.SerializeToString(), topic="labels")])

    (row,) = rows.table.to_pylist()
    assert (row["user_id"], row["item_id"], row["request_id"]) == ("ann", "i1", "r")
    assert (row["source_offset"], row["new_status"], row["new_clicked"]) == (11, 1, 1)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.topic)
def test_records_that_are_all_broken_make_an_empty_portion(table: object, tmp_path: Path) -> None:
    assert table in TABLES
    of = next(one for one in TABLES if one is table)
    log = DeltaLog(str(tmp_path), of)
    log.open([1])

    written = log.append([a_record(b"\xff", topic=of.topic)], {1: 0}, {1: 1})

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
