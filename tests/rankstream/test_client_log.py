"""The client's own way into the log: batches per partition, acks, named errors."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from uuid import UUID

import pytest

from rankstream import topics
from rankstream.adapters.kafka import LogReader, Record
from rankstream.client import LogProducer
from rankstream.client.log import EVENTS_PER_RECORD
from rankstream.contracts.codec import decode_batch, event_at
from rankstream.contracts.events import Event, ItemUpdate, UserUpdate, Visit
from rankstream.contracts.ids import partition_of
from rankstream.errors import DependencyUnavailable, TooLarge
from rankstream.pb import events_pb2 as pb

NOWHERE = "127.0.0.1:1"
T_MS = 1_800_000_000_000


def a_visit(number: int, user: str = "u") -> Visit:
    return Visit(event_id=str(UUID(int=number)), user_id=user, event_time_ms=T_MS)


def a_large_event(number: int, size: int) -> UserUpdate:
    return UserUpdate(
        event_id=str(UUID(int=number)),
        user_id="u",
        event_time_ms=T_MS,
        attributes={"text": str(number) + "x" * size},
    )


def read(bootstrap: str, topic: str) -> list[Record]:
    async def poll() -> list[Record]:
        reader = LogReader(bootstrap, [topic])
        records: list[Record] = []
        while not reader.caught_up:
            records += await reader.poll(1_000, 0.2)
        await reader.close()
        return records

    return asyncio.run(poll())


def events_of(record: Record) -> list[Event]:
    columns = decode_batch(record.value or b"")
    return [event_at(columns, row) for row in range(len(columns))]


@pytest.mark.parametrize("events", [[a_visit(1)], [ItemUpdate(item_id="i", updated_ms=T_MS)]])
def test_without_a_broker_a_send_fails_by_name_in_bounded_time(
    events: list[Visit | ItemUpdate],
) -> None:
    with LogProducer(NOWHERE, timeout_s=0.2) as log:
        with pytest.raises(DependencyUnavailable, match="0 events are in the log"):
            log.send(events)


@pytest.mark.integration
def test_events_are_batched_in_order_into_the_partition_of_their_user(kafka_topics: str) -> None:
    users = [f"user-{number}" for number in range(7)]
    events = [a_visit(number, users[number % 7]) for number in range(4_000)]
    item = ItemUpdate(item_id="i1", updated_ms=T_MS)

    with LogProducer(kafka_topics) as log:
        count = log.send([*events, item])

    by_user: defaultdict[str, list[Event]] = defaultdict(list)
    records = read(kafka_topics, topics.EVENTS.name)
    for record in records:
        for event in events_of(record):
            by_user[event.user_id].append(event)
            assert partition_of(event.user_id, topics.EVENTS.partitions) == record.partition
    assert count == 4_001
    assert by_user == {user: [e for e in events if e.user_id == user] for user in users}
    assert len(records) <= 4_000 // EVENTS_PER_RECORD + topics.EVENTS.partitions
    (stored,) = read(kafka_topics, topics.ITEMS.name)
    assert (stored.key, pb.Item.FromString(stored.value or b"").item_id) == (b"i1", "i1")


@pytest.mark.integration
def test_events_that_do_not_fit_one_record_take_several_and_one_too_large_is_refused(
    kafka_topics: str,
) -> None:
    events = [a_large_event(number, 1_000_000) for number in range(9)]

    with LogProducer(kafka_topics) as log:
        count = log.send(events)
        with pytest.raises(TooLarge, match="one event of"):
            log.send([a_large_event(99, topics.MAX_RECORD_BYTES)])

    records = read(kafka_topics, topics.EVENTS.name)
    assert count == 9
    assert [event for record in records for event in events_of(record)] == events
    assert len(records) > 1
