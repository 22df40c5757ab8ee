"""The log adapter: on no broker at all, and (integration) on a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from rankstream import topics
from rankstream.adapters.kafka import EventProducer, LogReader, Record, create_topics
from rankstream.contracts.ids import partition_of
from rankstream.errors import Conflict, DependencyUnavailable, QueueFull, TooLarge

NOWHERE = "127.0.0.1:1"


async def read_all(reader: LogReader) -> list[Record]:
    records: list[Record] = []
    async with asyncio.timeout(30):
        while not reader.caught_up:
            records += await reader.poll(1_000, 0.2)
    return records


async def test_a_send_without_a_broker_fails_by_name_in_bounded_time() -> None:
    producer = EventProducer(NOWHERE, delivery_timeout_s=0.2)

    async with asyncio.timeout(10):
        with pytest.raises(DependencyUnavailable, match="May have been appended"):
            await producer.send("events", b"x")
    await producer.flush_and_close()

    assert producer.in_flight == 0


async def test_sends_over_the_queue_are_refused() -> None:
    producer = EventProducer(NOWHERE, queue_records_max=2, delivery_timeout_s=0.5)
    waiting = [producer.send("events", b"x") for _ in range(2)]

    with pytest.raises(QueueFull, match="limit 2"):
        await producer.send("events", b"x")

    await asyncio.gather(*waiting, return_exceptions=True)
    await producer.flush_and_close()


async def test_a_record_over_the_limit_is_refused() -> None:
    producer = EventProducer(NOWHERE, delivery_timeout_s=0.2)

    with pytest.raises(TooLarge, match=str(topics.MAX_RECORD_BYTES)):
        await producer.send("events", b"x" * (topics.MAX_RECORD_BYTES + 1))

    await producer.flush_and_close()


async def test_a_closed_producer_refuses_to_send() -> None:
    producer = EventProducer(NOWHERE)
    await producer.flush_and_close()

    with pytest.raises(QueueFull, match="closed"):
        await producer.send("events", b"x")


@pytest.mark.integration
async def test_records_come_back_in_order_with_key_value_and_broker_time(
    kafka: str, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(3)
    producer = EventProducer(kafka)
    reader = LogReader(kafka, [topic])

    sent = await asyncio.gather(
        *(producer.send(topic, f"v{i}".encode(), key=f"k{i % 5}".encode()) for i in range(500))
    )
    await producer.flush_and_close()
    records = await read_all(reader)
    await reader.close()

    found = {(record.partition, record.offset): record.value for record in records}
    assert found == {place: f"v{i}".encode() for i, place in enumerate(sent)}
    for record in records:
        assert record.partition == partition_of(record.key.decode(), 3)
        assert record.timestamp_ms > 0
    by_partition = [[r.offset for r in records if r.partition == p] for p in range(3)]
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition)


@pytest.mark.integration
async def test_a_reader_of_an_empty_topic_has_caught_up_after_one_poll(
    kafka: str, new_topic: Callable[[int], str]
) -> None:
    reader = LogReader(kafka, [new_topic(2)])
    assert not reader.caught_up

    records = await reader.poll(10, 0.1)
    caught_up, lag = reader.caught_up, reader.lag()
    await reader.close()

    assert records == []
    assert caught_up
    assert set(lag.values()) == {0}


@pytest.mark.integration
async def test_a_reader_starts_at_given_offsets_and_follows_new_records(
    kafka: str, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    producer = EventProducer(kafka)
    for value in (b"a", b"b", b"c"):
        await producer.send(topic, value)
    reader = LogReader(kafka, [topic], offsets={(topic, 0): 2})

    before = await read_all(reader)
    await producer.send(topic, None, key=b"k")
    after: list[Record] = []
    async with asyncio.timeout(10):
        while not after:
            after = await reader.poll(10, 0.2)
    positions = reader.positions()
    await reader.close()
    await producer.flush_and_close()

    assert [record.value for record in before] == [b"c"]
    assert [(record.key, record.value) for record in after] == [(b"k", None)]
    assert positions == {(topic, 0): 4}


@pytest.mark.integration
async def test_a_reader_starts_at_a_time_where_it_is_given_no_offset(
    kafka: str, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(3)
    producer = EventProducer(kafka)
    keys = {partition_of(f"k{n}", 3): f"k{n}".encode() for n in range(50)}
    for partition in (0, 1):
        await producer.send(topic, b"old", key=keys[partition])
    await asyncio.sleep(0.05)
    (last,) = [r for r in await read_all(LogReader(kafka, [topic])) if r.partition == 1]
    await asyncio.sleep(0.05)
    await producer.send(topic, b"new", key=keys[1])
    reader = LogReader(kafka, [topic], offsets={(topic, 0): 0}, since_ms=last.timestamp_ms + 1)

    records = await read_all(reader)
    positions = reader.positions()
    await reader.close()
    await producer.flush_and_close()

    assert [(r.partition, r.value) for r in sorted(records, key=lambda r: r.partition)] == [
        (0, b"old"),
        (1, b"new"),
    ]
    assert positions == {(topic, 0): 1, (topic, 1): 2, (topic, 2): 0}


@pytest.mark.integration
async def test_an_offset_that_the_log_does_not_have_is_a_conflict(
    kafka: str, new_topic: Callable[[int], str]
) -> None:
    topic = new_topic(1)
    reader = LogReader(kafka, [topic], offsets={(topic, 0): 99})

    with pytest.raises(Conflict, match="no longer has"):
        await read_all(reader)

    await reader.close()


@pytest.mark.integration
async def test_a_reader_of_an_unknown_topic_says_so(kafka: str) -> None:
    reader = LogReader(kafka, ["no-such-topic"])

    with pytest.raises(DependencyUnavailable, match="no-such-topic"):
        await reader.poll(10, 0.1)

    await reader.close()


@pytest.mark.integration
async def test_topics_are_created_once_with_their_partitions(kafka_topics: str) -> None:
    create_topics(kafka_topics)
    producer = EventProducer(kafka_topics)

    counts = {topic.name: await producer.partitions(topic.name) for topic in topics.ALL}
    await producer.flush_and_close()

    assert counts == {topic.name: topic.partitions for topic in topics.ALL}


@pytest.mark.integration
def test_partitions_added_to_a_topic_are_refused_by_name(kafka_topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_topics})
    grown = NewPartitions(topics.EVENTS.name, 8)
    for future in admin.create_partitions([grown]).values():
        future.result(10)
    # The broker follows its controller.
    while len(admin.list_topics(topics.EVENTS.name, timeout=10).topics["events"].partitions) < 8:
        time.sleep(0.02)

    with pytest.raises(Conflict, match="events has 8, labels has 4, sessions has 4 partitions"):
        create_topics(kafka_topics)
