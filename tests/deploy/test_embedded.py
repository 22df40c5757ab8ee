"""The fixtures themselves: a real broker and a real Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from rankstream import topics

pytestmark = pytest.mark.integration


def test_a_record_comes_back_from_the_broker(kafka: str, new_topic: Callable[[int], str]) -> None:
    topic = new_topic(1)
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": topic, "auto.offset.reset": "earliest"}
    )

    producer.produce(topic, key=b"k", value=b"v")
    assert producer.flush(10) == 0
    consumer.subscribe([topic])
    record = consumer.poll(20)
    consumer.close()

    assert record is not None
    assert (record.key(), record.value()) == (b"k", b"v")


def test_a_topic_that_nobody_created_is_an_error_not_a_new_topic(kafka: str) -> None:
    failures: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": kafka, "message.timeout.ms": 3_000})

    producer.produce("misspelt", b"v", on_delivery=lambda error, _record: failures.append(error))
    producer.flush(10)

    assert [failure.code() for failure in failures if failure] in (
        [KafkaError._UNKNOWN_TOPIC],
        [KafkaError.UNKNOWN_TOPIC_OR_PART],
        [KafkaError._MSG_TIMED_OUT],
    )


def test_the_topics_are_all_there(kafka_topics: str) -> None:
    cluster = AdminClient({"bootstrap.servers": kafka_topics}).list_topics(timeout=10).topics

    partitions = {topic.name: len(cluster[topic.name].partitions) for topic in topics.ALL}

    assert partitions == {topic.name: topic.partitions for topic in topics.ALL}


@pytest.mark.parametrize("time", [1, 2])
def test_no_record_of_an_earlier_test_is_left(kafka_topics: str, time: int) -> None:
    producer = Producer({"bootstrap.servers": kafka_topics, "acks": "all"})
    offsets: list[int | None] = []

    producer.produce(
        topics.MODELS.name,
        key=b"k",
        value=b"v",
        on_delivery=lambda _error, record: offsets.append(record.offset()),
    )
    producer.flush(10)

    assert offsets == [0]


@pytest.mark.parametrize("time", [1, 2])
def test_no_key_of_an_earlier_test_is_left(clean_redis: str, time: int) -> None:
    with redis.Redis.from_url(clean_redis) as client:
        before = client.dbsize()
        client.set("k", "v")

    assert before == 0
