"""What every history must be, whatever log it was made of."""

from __future__ import annotations

import numpy as np

from pipelines.datasets.history import EVENTS_PER_BATCH, History, batches, ndjson
from rankstream.contracts.codec import decode_batch, decode_message, event_at
from rankstream.contracts.columns import EventColumns, Kind, TimeLimits, refuse
from rankstream.contracts.events import Event, ItemUpdate

PARTITIONS = 3


def events_of(columns: EventColumns) -> list[Event]:
    """Every event as a contract."""
    return [event_at(columns, row) for row in range(len(columns))]


def told(history: History) -> list[tuple[str, str, str, int]]:
    """(kind, user, item, time from the first event) of each event."""
    events = events_of(history.columns)
    first_ms = events[0].event_time_ms
    return [
        (e.kind, e.user_id, getattr(e, "item_id", ""), e.event_time_ms - first_ms) for e in events
    ]


def assert_sound(history: History) -> None:
    """In order of time, every event once, feedback after its impression, and no byte lost."""
    columns = history.columns
    assert (np.diff(columns.event_time_ms) >= 0).all()
    assert len(set(np.frombuffer(columns.event_id, "V16").tolist())) == len(columns)
    last_ms = int(columns.event_time_ms[-1])
    assert refuse(columns, append_time_ms=last_ms, limits=TimeLimits(behind_ms_max=1 << 62)) == []
    _assert_feedback_follows(columns)
    _assert_round_trip(columns)
    messages = [decode_message(line.encode()) for line in ndjson(history)]
    assert len(messages) == len(history.items) + len(columns)
    assert all(isinstance(m, ItemUpdate) for m in messages[: len(history.items)])


def _assert_feedback_follows(columns: EventColumns) -> None:
    shown: dict[tuple[int, int, int], int] = {}
    items = {columns.strings[number] for number in columns.item_id.tolist()}
    assert items
    for row in range(len(columns)):
        key = tuple(int(c[row]) for c in (columns.user_id, columns.request_id, columns.item_id))
        assert len(key) == 3
        if columns.kind[row] == Kind.IMPRESSION:
            assert key not in shown
            shown[key] = int(columns.event_time_ms[row])
        elif columns.request_id[row]:
            assert columns.event_time_ms[row] >= shown[key] + 1_000


def _assert_round_trip(columns: EventColumns) -> None:
    sent = sorted(event.model_dump_json() for event in events_of(columns))
    received = []
    for record in batches(columns, partitions=PARTITIONS):
        assert record.events <= EVENTS_PER_BATCH
        received += [event.model_dump_json() for event in events_of(decode_batch(record.record))]
    assert sorted(received) == sent
