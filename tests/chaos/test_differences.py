"""The comparison of a fault run sees what it is there to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from rankstream.adapters.kafka import Record
from rankstream.adapters.redis_rows import USER_STATE, entity_key
from rankstream.pb import events_pb2 as pb
from tests.chaos import reference
from tests.chaos.differences import differences
from tests.chaos.events import CLICK, IMPRESSION, Event, record_of
from tests.chaos.rows import rows_of
from tests.chaos.run import Outcome
from tests.chaos.traffic import BASE_MS, END_MS, WINDOWS, tick

SHOWN = Event(IMPRESSION, bytes(15) + b"1", BASE_MS, "ann", "i", "r", "c")
CLICKED = Event(CLICK, bytes(15) + b"2", BASE_MS + 1_000, "ann", "i", "r", "c")
LOST = Event(CLICK, bytes(15) + b"3", BASE_MS + 2_000, "ann", item="i", request="never")
USER_KEY = entity_key(USER_STATE, "ann")


def a_record(topic: str, offset: int, value: bytes) -> Record:
    return Record(topic, 0, offset, END_MS, b"", value)


def labels_at(offset: int, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """A change of the one label, as (status, clicked)."""
    return pb.LabelBatch(
        source_offset=offset,
        strings=["", "ann", "i", "r"],
        user_id=[1],
        item_id=[2],
        request_id=[3],
        impression_time_ms=[BASE_MS],
        position=[0],
        old_status=[old[0]],  # type: ignore[list-item]  # an enum's number
        new_status=[new[0]],  # type: ignore[list-item]  # an enum's number
        old_clicked=[old[1]],
        new_clicked=[new[1]],
        old_purchased=[0],
        new_purchased=[0],
        old_value_micros=[0],
        new_value_micros=[0],
    ).SerializeToString()


def a_session(offset: int) -> bytes:
    return pb.Session(
        source_offset=offset,
        user_id="ann",
        start_ms=BASE_MS,
        end_ms=BASE_MS + 2_000,
        events=3,
        impressions=1,
        clicks=2,
    ).SerializeToString()


def a_run_without_differences(lake: Path) -> Outcome:
    """A slate of one item, clicked, and a click of another that never was."""
    values = [record_of([SHOWN, CLICKED, LOST]), tick(0, END_MS)]
    events = {0: [a_record("events", offset, value) for offset, value in enumerate(values)]}
    kept = [SHOWN, CLICKED, LOST]
    added = reference.additions(kept, reference.join(kept))
    ended = reference.sessions(kept, WINDOWS.session_gap_ms)
    tables = rows_of(kept, added, ended, {})
    original = pb.EventBatch(event_id=LOST.event_id).SerializeToString()
    letter = pb.DeadLetter(code="unmatched", original=original).SerializeToString()
    changes = [labels_at(0, (0, 0), (1, 1)), labels_at(1, (1, 1), (2, 1))]
    write_lake(lake, events[0])
    return Outcome(
        lake=lake,
        log={
            "events": events,
            "items": {},
            "labels": {0: [a_record("labels", n, value) for n, value in enumerate(changes)]},
            "sessions": {0: [a_record("sessions", 0, a_session(1))]},
            "events.dead": {0: [a_record("events.dead", 0, letter)]},
        },
        redis_rows={
            entity_key(view, key): {view.field: view.value_head + row.tobytes()}
            for view, table in tables.items()
            for key, row in zip(table.keys, table.rows, strict=True)
        },
        counts={
            "events": 3,
            "folded": 3,
            "ticks": 1,
            "unmatched": 1,
            "labels_closed": 1,
            "sessions_closed": 1,
        },
    )


def write_lake(lake: Path, log: list[Record]) -> None:
    placed = reference.sift({0: log}, WINDOWS).rows
    rows = [
        {
            **dict(zip(("partition", "offset", "row", "append_time_ms"), place[:4], strict=True)),
            "event_id": place.event.event_id,
            "kind": place.event.kind,
            "event_time_ms": place.event.time_ms,
            "user_id": place.event.user,
            "item_id": place.event.item,
            "request_id": place.event.request,
            "category": place.event.category,
            "query": place.event.query,
            "location": place.event.location,
            "position": place.event.position,
            "value": place.event.value,
            "attributes": "",
        }
        for place in placed
    ]
    write_deltalake(str(lake / "events"), pa.Table.from_pylist(rows))
    label = {"status": 2, "clicked": 1, "purchased": 0, "value_micros": 0, "position": 0}
    key = {"user_id": "ann", "request_id": "r", "item_id": "i", "impression_time_ms": BASE_MS}
    write_deltalake(str(lake / "labels"), pa.Table.from_pylist([key | label]))


def areas_of(outcome: Outcome) -> dict[str, int]:
    """Differences by area, those without any left out."""
    areas = differences(outcome, WINDOWS)
    assert all(bool(area.examples) == bool(area.differences) for area in areas)
    return {area.name: area.differences for area in areas if area.differences}


def test_a_run_without_differences_has_none(tmp_path: Path) -> None:
    outcome = a_run_without_differences(tmp_path)

    assert areas_of(outcome) == {}


def test_records_sent_again_are_no_difference(tmp_path: Path) -> None:
    outcome = a_run_without_differences(tmp_path)

    for topic in ("labels", "sessions", "events.dead"):
        outcome.log[topic][0] *= 2

    assert areas_of(outcome) == {}


def _lose_a_row(outcome: Outcome) -> None:
    del outcome.redis_rows[USER_KEY]


def _count_a_click_twice(outcome: Outcome) -> None:
    value = outcome.redis_rows[USER_KEY][USER_STATE.field]
    head = len(USER_STATE.value_head)
    row = np.frombuffer(value[head:], USER_STATE.dtype).copy()
    row["totals"][0, 1] += 1
    outcome.redis_rows[USER_KEY][USER_STATE.field] = value[:head] + row.tobytes()


def _keep_a_row_of_nobody(outcome: Outcome) -> None:
    outcome.redis_rows[entity_key(USER_STATE, "bob")] = {}


def _send_a_change_twice_under_two_offsets(outcome: Outcome) -> None:
    first = (0, 0), (1, 1)
    changes = [labels_at(0, *first), labels_at(1, *first), labels_at(2, (1, 1), (2, 1))]
    outcome.log["labels"][0] = [a_record("labels", n, value) for n, value in enumerate(changes)]


def _never_make_a_label_final(outcome: Outcome) -> None:
    outcome.log["labels"][0].pop()


def _close_a_session_twice(outcome: Outcome) -> None:
    outcome.log["sessions"][0].append(a_record("sessions", 1, a_session(7)))


def _forget_a_dead_letter(outcome: Outcome) -> None:
    outcome.log["events.dead"][0].clear()


def _write_the_lake_twice(outcome: Outcome) -> None:
    again = reference.sift({0: outcome.log["events"][0][:1]}, WINDOWS).rows[0]
    row = {"partition": again.partition, "offset": again.offset, "row": again.row}
    write_deltalake(
        str(outcome.lake / "events"),
        pa.Table.from_pylist([row]),
        mode="append",
        schema_mode="merge",
    )


def _count_one_more(outcome: Outcome) -> None:
    outcome.counts["folded"] += 1


@pytest.mark.parametrize(
    ("spoil", "areas"),
    [
        (_lose_a_row, {"user rows"}),
        (_count_a_click_twice, {"user rows"}),
        (_keep_a_row_of_nobody, {"user rows"}),
        (_send_a_change_twice_under_two_offsets, {"label changes", "scorecard inputs"}),
        (_never_make_a_label_final, {"labels", "label changes"}),
        (_close_a_session_twice, {"sessions"}),
        (_forget_a_dead_letter, {"dead letters"}),
        (_write_the_lake_twice, {"lake rows"}),
        (_count_one_more, {"counts"}),
    ],
)
def test_what_differs_is_found(
    spoil: Callable[[Outcome], None], areas: set[str], tmp_path: Path
) -> None:
    outcome = a_run_without_differences(tmp_path)

    spoil(outcome)

    assert set(areas_of(outcome)) == areas
