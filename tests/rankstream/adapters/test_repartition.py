"""A log copied into more partitions: what is there, in which order, with which times."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from uuid import UUID

import pytest
from typer.testing import CliRunner

from rankstream import cli, topics
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.partitions import Partitions, agreed, read_partitions
from rankstream.adapters.repartition import repartition
from rankstream.contracts.codec import (
    decode_batch,
    encode_batch,
    encode_item,
    encode_tick,
    event_at,
)
from rankstream.contracts.events import Event, ItemUpdate, Visit
from rankstream.contracts.ids import partition_of
from rankstream.contracts.record import Record
from rankstream.errors import Conflict, DependencyUnavailable
from rankstream.pb import events_pb2 as pb

USERS = [f"user-{number}" for number in range(20)]
MORE = 6
Headers = tuple[tuple[str, bytes], ...]


def a_visit(number: int) -> Visit:
    return Visit(
        event_id=str(UUID(int=number)), user_id=USERS[number * 7 % 20], event_time_ms=5 + number
    )


def produce(bootstrap: str) -> None:
    """Records of several users, one after another; a tick, garbage, an item, dead letters."""

    async def send() -> None:
        log = EventProducer(bootstrap, linger_ms=0)
        for first in range(0, 200, 10):
            by_partition = defaultdict(list)
            for number in range(first, first + 10):
                visit = a_visit(number)
                by_partition[partition_of(visit.user_id, 4)].append(visit)
            for partition, visits in by_partition.items():
                value = encode_batch(visits)
                await log.send("events", value, partition=partition, headers=[("trace", b"1")])
        await log.send("events", encode_tick(str(UUID(int=999)), 5), partition=0)
        await log.send("events", b"garbage", partition=3)
        for updated_ms in (1, 2):
            item = ItemUpdate(item_id="i1", updated_ms=updated_ms)
            await log.send("items", encode_item(item), key=b"i1")
        for source in ("ingest", "features"):
            letter = pb.DeadLetter(dead_letter_id="events/0/1", source=source)
            await log.send("events.dead", letter.SerializeToString())
        await log.send("labels", b"made by a worker", partition=0)
        await log.flush_and_close()

    asyncio.run(send())


def read(bootstrap: str, topic: str) -> list[Record]:
    async def poll() -> list[Record]:
        reader = LogReader(bootstrap, [topic])
        records: list[Record] = []
        while not reader.caught_up:
            records += await reader.poll(1_000, 0.2)
        await reader.close()
        return records

    return asyncio.run(poll())


def by_user(records: list[Record]) -> dict[str, list[tuple[Event, int, Headers]]]:
    """Events of each user in the order of the log, with their record's time and headers."""
    found = defaultdict(list)
    for record in records:
        if record.value == b"garbage":
            continue
        columns = decode_batch(record.value or b"")
        if columns.kind[0] == pb.KIND_TICK:
            continue
        for row in range(len(columns)):
            event = event_at(columns, row)
            found[event.user_id].append((event, record.timestamp_ms, record.headers))
    return found


@pytest.mark.integration
def test_a_copy_has_every_users_events_in_order_with_their_times_in_one_partition(
    kafka_topics: str, second_kafka: str
) -> None:
    produce(kafka_topics)
    command = ["--kafka-url", kafka_topics, "repartition", "--partitions", str(MORE)]

    done = CliRunner().invoke(cli.app, [*command, "--to", second_kafka, "--json"])

    assert done.exit_code == 0, done.output
    appended = json.loads(done.stdout)
    old, new = read(kafka_topics, "events"), read(second_kafka, "events")
    assert by_user(new) == by_user(old)
    for record in new:
        if record.value != b"garbage":
            columns = decode_batch(record.value or b"")
            users = {event_at(columns, row).user_id for row in range(len(columns))}
            assert {partition_of(user, MORE) for user in users} == {record.partition}
    for partition in range(MORE):
        times = [r.timestamp_ms for r in new if r.partition == partition]
        assert times == sorted(times)
        assert times
    assert [r.value for r in new].count(b"garbage") == 1
    assert appended["events"] == len(new)
    items = read(second_kafka, "items")
    assert [pb.Item.FromString(r.value or b"").updated_ms for r in items] == [1, 2]
    (letter,) = read(second_kafka, "events.dead")
    assert pb.DeadLetter.FromString(letter.value or b"").dead_letter_id == "old/events/0/1"
    assert read(second_kafka, "labels") == []
    assert read_partitions(second_kafka) == Partitions(MORE, MORE)


@pytest.mark.integration
def test_after_the_copy_the_brokers_clock_says_when_a_record_came(
    kafka_topics: str, second_kafka: str
) -> None:
    asyncio.run(repartition(kafka_topics, second_kafka, 5, progress=lambda _topic, _read: None))

    produce(second_kafka)

    assert min(record.timestamp_ms for record in read(second_kafka, "events")) > 1_700_000_000_000


@pytest.mark.integration
async def test_a_cluster_that_has_our_topics_is_not_copied_into(kafka_topics: str) -> None:
    with pytest.raises(Conflict, match="Nothing was copied"):
        await repartition(kafka_topics, kafka_topics, 8, progress=lambda _topic, _read: None)


def test_topics_that_belong_together_must_have_as_many_partitions() -> None:
    counts = {topic.name: 4 for topic in topics.ALL}

    assert agreed("k", counts | {"served": 9}) == Partitions(4, 4)
    with pytest.raises(Conflict, match="events has 8, labels has 4, sessions has 4 partitions"):
        agreed("k", counts | {"events": 8})
    with pytest.raises(Conflict, match="feature-updates has 4, items has 2"):
        agreed("k", counts | {"items": 2})
    with pytest.raises(DependencyUnavailable, match="no topic labels, sessions"):
        agreed("k", {"events": 4, "feature-updates": 4, "items": 4})
