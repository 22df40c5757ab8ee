"""The load: seeded, of the promised mix, in records that the service takes without a refusal."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bench.stream.load import REPEAT_EVERY, Traffic, chunks, draw, records
from rankstream.contracts.codec import decode_batch, event_at
from rankstream.contracts.columns import Kind, TimeLimits, refuse
from rankstream.contracts.ids import partition_of

NOW_MS = 1_795_000_000_000
PARTITIONS = 8


def test_three_events_in_four_are_impressions_and_none_lies_ahead() -> None:
    events = draw(Traffic(50_000, end_ms=NOW_MS, seed=5))

    share = {kind: n / len(events) for kind, n in Counter(events.kind.tolist()).items()}
    assert len(events) == pytest.approx(50_000, rel=0.02)
    assert share[Kind.IMPRESSION] == pytest.approx(0.75, abs=0.01)
    assert set(share) == {Kind.IMPRESSION, Kind.CLICK, Kind.VIEW, Kind.PURCHASE, Kind.RATE}
    assert events.time_ms.max() <= NOW_MS


def test_the_seed_decides_everything() -> None:
    traffic = Traffic(5_000, end_ms=NOW_MS, seed=9)

    first = list(records(draw(traffic), partitions=PARTITIONS, size=100))
    again = list(records(draw(traffic), partitions=PARTITIONS, size=100))

    assert first == again


@pytest.mark.parametrize("size", [1, 100])
def test_records_hold_each_event_once_in_its_users_partition(size: int) -> None:
    events = draw(Traffic(3_000, users=200, end_ms=NOW_MS, seed=3))

    sent = list(records(events, partitions=PARTITIONS, size=size))

    ids = set()
    for record in sent:
        columns = decode_batch(record.value)
        assert len(columns) == record.events <= size
        assert refuse(columns, append_time_ms=NOW_MS, limits=TimeLimits()) == []
        for row in range(len(columns)):
            event = event_at(columns, row)
            assert partition_of(event.user_id, PARTITIONS) == record.partition
            ids.add(event.event_id)
    assert len(ids) == len(events)
    made = len(chunks(events, partitions=PARTITIONS, size=size))
    assert len(sent) == made + made // REPEAT_EVERY


def test_both_sizes_of_records_say_the_same_of_an_event() -> None:
    events = draw(Traffic(400, users=20, end_ms=NOW_MS, seed=4))

    def told(size: int) -> dict[str, object]:
        batches = (decode_batch(r.value) for r in records(events, partitions=1, size=size))
        found = [event_at(columns, row) for columns in batches for row in range(len(columns))]
        return {event.event_id: event for event in found}

    assert told(1) == told(100)


def test_every_user_appears_when_asked_for() -> None:
    events = draw(Traffic(10, users=5_000, impressions_per_slate=1, end_ms=NOW_MS, every_user=True))

    assert len(np.unique(events.user)) == 5_000


def test_events_arrive_almost_in_order_of_their_time() -> None:
    events = draw(Traffic(20_000, end_ms=NOW_MS))

    behind_ms = np.maximum.accumulate(events.time_ms) - events.time_ms
    assert 0 < behind_ms.max() < 60_000
