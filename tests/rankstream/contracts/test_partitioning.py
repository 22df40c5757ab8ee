"""Splitting a record by user: nothing is lost, changed, or out of order."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.codec import decode_batch, encode_batch, encode_tick, event_at
from rankstream.contracts.columns import Refusal
from rankstream.contracts.events import Event, Impression, Purchase, UserUpdate, Visit
from rankstream.contracts.ids import partition_of
from rankstream.contracts.partitioning import misplaced, split_batch
from rankstream.pb import events_pb2 as pb

T_MS = 1_800_000_000_000
TEXT = st.sampled_from(["", "a", "b", "Zoë"])
SOME_TEXT = st.sampled_from(["x", "y", "z"])


def an_event(number: int, user: str, text: str, item: str, shape: int) -> Event:
    base = {"event_id": str(UUID(int=number)), "user_id": user, "event_time_ms": T_MS + number}
    about = {"item_id": item, "category": text, "request_id": item}
    match shape:
        case 0:
            return Visit.model_validate({**base, "query": text, "device": item})
        case 1:
            return Impression.model_validate({**base, **about, "position": number % 7})
        case 2:
            return Purchase.model_validate({**base, **about, "value": number / 8, "currency": text})
        case _:
            attributes = {"age": number / 2, "city": f"city {text}", item: 0.0}
            return UserUpdate.model_validate({**base, "attributes": attributes})


EVENTS = st.lists(
    st.tuples(st.integers(0, 12), TEXT, SOME_TEXT, st.integers(0, 3)), min_size=1, max_size=30
).map(
    lambda drawn: [
        an_event(number, f"user-{user}", text, item, shape)
        for number, (user, text, item, shape) in enumerate(drawn)
    ]
)


def events_of(record: bytes) -> list[Event]:
    columns = decode_batch(record)
    return [event_at(columns, row) for row in range(len(columns))]


@given(EVENTS, st.integers(1, 9))
def test_every_event_goes_to_its_users_partition_once_as_it_was_and_in_order(
    events: list[Event], partitions: int
) -> None:
    parts = split_batch(decode_batch(encode_batch(events)), partitions)

    assert {partition: events_of(record) for partition, record in parts.items()} == {
        partition: own
        for partition in range(partitions)
        if (own := [e for e in events if partition_of(e.user_id, partitions) == partition])
    }


@given(EVENTS)
def test_a_part_holds_only_the_strings_that_it_uses(events: list[Event]) -> None:
    for record in split_batch(decode_batch(encode_batch(events)), 5).values():
        assert set(pb.EventBatch.FromString(record).strings) == set(
            pb.EventBatch.FromString(encode_batch(events_of(record))).strings
        )


def test_a_tick_goes_nowhere_and_is_in_the_wrong_partition_nowhere() -> None:
    columns = decode_batch(encode_tick(str(UUID(int=1)), T_MS))

    assert split_batch(columns, 4) == {}
    assert all(misplaced(columns, [], partition=p, partitions=4) == [] for p in range(4))


@pytest.mark.parametrize("partition", range(4))
def test_users_of_other_partitions_are_named(partition: int) -> None:
    events = [an_event(n, f"user-{n}", "a", "x", 0) for n in range(12)]

    columns = decode_batch(encode_batch(events))

    refusals = misplaced(columns, [], partition=partition, partitions=4)

    strangers = [n for n in range(12) if partition_of(f"user-{n}", 4) != partition]
    assert [refusal.row for refusal in refusals] == strangers
    assert {refusal.code for refusal in refusals} == {"wrong_partition"}
    assert f"the event was in {partition}: partition by murmur2" in refusals[0].reason


def test_a_row_that_is_refused_for_another_reason_keeps_it() -> None:
    events = [an_event(n, f"user-{n}", "a", "x", 0) for n in range(3)]
    known = [Refusal(1, "unknown_kind", "kind is not known")]

    refusals = misplaced(decode_batch(encode_batch(events)), known, partition=9, partitions=10)

    codes = {refusal.row: refusal.code for refusal in refusals}
    assert codes == {0: "wrong_partition", 1: "unknown_kind", 2: "wrong_partition"}
    assert [refusal.row for refusal in refusals] == [0, 1, 2]
