"""A log whose number of partitions has changed is refused by name, before anything is folded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
import redis
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from typer.testing import CliRunner

from rankstream import cli, topics
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.partitions import BY_ITEM, BY_USER, existing
from rankstream.adapters.redis_rows import offset_key
from rankstream.client import LogProducer
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.events import Visit
from rankstream.contracts.ids import new_id, partition_of
from tests.services.features.embedded_service import Service

pytestmark = pytest.mark.integration

MORE = 6
WAIT_S = 60.0


def add_partitions(bootstrap: str, *names: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    grown = [NewPartitions(name, MORE) for name in names]
    for future in admin.create_partitions(grown).values():
        future.result(10)
    # The broker follows its controller.
    while any(existing(bootstrap)[name] < MORE for name in names):
        time.sleep(0.05)


def visit(bootstrap: str, user_id: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    with LogProducer(bootstrap) as log:
        log.send([Visit(event_id=new_id(), user_id=user_id, event_time_ms=now_ms)])


def test_partitions_added_to_one_topic_are_refused(
    new_service: Callable[..., Service], kafka_topics: str, clean_redis: str
) -> None:
    add_partitions(kafka_topics, "events")
    service = new_service()

    service.start()

    assert service.wait_exit(WAIT_S) != 0
    assert f"events has {MORE}, labels has 4, sessions has 4 partitions" in service.log.read_text()
    with redis.Redis.from_url(clean_redis) as client:
        assert client.exists(offset_key("users", 0)) == 0


def test_partitions_added_to_every_topic_do_not_fit_the_rows_in_redis(
    new_service: Callable[..., Service], kafka_topics: str, clean_redis: str
) -> None:
    service = new_service()
    service.start()
    visit(kafka_topics, "user-1")
    service.wait(lambda counts: counts["folded"] == 1)
    assert service.stop() == 0
    add_partitions(kafka_topics, *(topic.name for topic in (*BY_USER, *BY_ITEM)))

    service.start()

    assert service.wait_exit(WAIT_S) != 0
    text = service.log.read_text()
    assert f"the log has events={MORE} feature-updates={MORE} partitions" in text
    assert "the rows in Redis were made with events=4 feature-updates=4" in text
    assert "more-partitions" in text


def test_partitions_added_while_it_runs_end_it(
    new_service: Callable[..., Service], kafka_topics: str
) -> None:
    service = new_service()
    service.start()
    service.wait(lambda counts: len(counts["partitions"]) == 4)
    add_partitions(kafka_topics, *(topic.name for topic in (*BY_USER, *BY_ITEM)))
    second = new_service()

    second.start()  # a worker that joins has the group look at the partitions again

    assert second.wait_exit(WAIT_S) != 0
    assert "the rows in Redis were made with" in second.log.read_text()
    # The first one folds nothing of a partition that it does not know.
    counts = service.counts()
    assert set(counts.get("partitions", {})) <= {"0", "1", "2", "3"}


def test_an_event_in_another_partition_than_its_users_is_refused_and_can_be_sent_again(
    new_service: Callable[..., Service], kafka_topics: str
) -> None:
    # However long the replay takes, the event is not late.
    service = new_service(LATENESS_MS="120000")
    service.start()
    own = partition_of("user-1", topics.EVENTS.partitions)
    now_ms = time.time_ns() // 1_000_000
    visits = [Visit(event_id=new_id(), user_id="user-1", event_time_ms=now_ms) for _ in range(2)]
    append(kafka_topics, encode_batch(visits[:1]), own)
    append(kafka_topics, encode_batch(visits[1:]), (own + 1) % topics.EVENTS.partitions)
    service.wait(lambda counts: (counts["folded"], counts["refused"]) == (1, 1))

    replayed = CliRunner().invoke(
        cli.app, ["--kafka-url", kafka_topics, "dead", "replay", "--json"]
    )

    assert replayed.exit_code == 0, replayed.output
    (row,) = json.loads(replayed.stdout)
    assert (row["code"], row["done"]) == ("wrong_partition", f"1 event(s) to events[{own}]")
    service.wait(lambda counts: (counts["folded"], counts["refused"]) == (2, 1))


def append(bootstrap: str, record: bytes, partition: int) -> None:
    async def send() -> None:
        producer = EventProducer(bootstrap)
        await producer.send(topics.EVENTS.name, record, partition=partition)
        await producer.flush_and_close()

    asyncio.run(send())
