"""Events produced straight to `events.json`: moved once acked, refused with their place."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.dead_share import DeadShare
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import decode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import DependencyUnavailable, TooManyDeadLetters
from rankstream.pb import events_pb2 as pb
from rankstream.testing import FakeEventLog
from services.ingest.json_topic import GROUP, JsonTopic
from services.ingest.publisher import Publisher
from services.ingest.settings import IngestSettings

NOW_MS = 1_800_000_000_000
NOWHERE = "127.0.0.1:1"
LIMITS = TimeLimits()


def a_visit(number: int, **changes: Any) -> dict[str, Any]:
    base = {
        "kind": "visit",
        "event_id": str(UUID(int=number)),
        "user_id": f"u{number}",
        "event_time_ms": NOW_MS,
    }
    return base | changes


def a_record(value: bytes | None, **changes: Any) -> Record:
    base = Record("events.json", 3, 42, NOW_MS, b"key", value, (("trace", b"\xff1"), ("none", b"")))
    return replace(base, **changes)


def a_topic(
    publisher: Publisher,
    metrics_of: Metrics,
    *,
    kafka_url: str = NOWHERE,
    limits: TimeLimits = LIMITS,
    share_max: float = 1.0,
    window_events: int = 10_000,
) -> JsonTopic:
    return JsonTopic(
        kafka_url,
        publisher=publisher,
        limits=limits,
        dead_share=DeadShare(share_max=share_max, window_events=window_events),
        metrics_of=metrics_of,
    )


@pytest.fixture
def log() -> FakeEventLog:
    return FakeEventLog()


@pytest.fixture
async def topic(log: FakeEventLog) -> JsonTopic:
    metrics_of = Metrics(CollectorRegistry())
    publisher = Publisher(log, IngestSettings(batch_wait_ms=1), metrics_of)
    await publisher.locate()
    return a_topic(publisher, metrics_of)


def letters(log: FakeEventLog) -> list[pb.DeadLetter]:
    return [pb.DeadLetter.FromString(value) for value in log.values(topics.EVENTS_DEAD.name)]


def moved(log: FakeEventLog) -> int:
    return sum(len(decode_batch(value)) for value in log.values(topics.EVENTS.name))


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (json.dumps(a_visit(1)).encode(), 1),
        (json.dumps([a_visit(1), a_visit(2)]).encode(), 2),
    ],
)
async def test_a_record_holds_an_event_or_an_array(
    topic: JsonTopic, log: FakeEventLog, value: bytes, count: int
) -> None:
    await topic.move([a_record(value)])

    assert moved(log) == count
    assert letters(log) == []


async def test_a_bad_event_goes_to_the_dead_letters_with_the_records_bytes_and_place(
    topic: JsonTopic, log: FakeEventLog
) -> None:
    value = json.dumps([a_visit(1), a_visit(2, user_id=""), {}, a_visit(4)]).encode()

    await topic.move([a_record(value)])

    (letter,) = letters(log)
    assert moved(log) == 2
    assert (letter.original, letter.original_key) == (value, b"key")
    assert (letter.topic, letter.partition, letter.offset) == ("events.json", 3, 42)
    assert (list(letter.rows), letter.events, letter.code) == ([1, 2], 2, "invalid_event")
    assert letter.dead_letter_id == "events.json/3/42"
    assert [(h.name, h.value) for h in letter.headers] == [("trace", b"\xff1"), ("none", b"")]


@pytest.mark.parametrize("value", [b"[oops", b"oops", b"", None, b"[]"])
async def test_a_record_that_holds_no_event_goes_whole(
    topic: JsonTopic, log: FakeEventLog, value: bytes | None
) -> None:
    await topic.move([a_record(value)])

    (letter,) = letters(log)
    assert letter.original == (value or b"")
    assert letter.events == 1


async def test_the_largest_record_there_is_goes_to_the_dead_letters(
    topic: JsonTopic, log: FakeEventLog
) -> None:
    await topic.move([a_record(b"x" * topics.MAX_RECORD_BYTES, headers=(("h", b"y" * 70_000),))])

    (value,) = log.values(topics.EVENTS_DEAD.name)
    assert len(value) < topics.MAX_RECORD_BYTES
    assert "were not kept" in pb.DeadLetter.FromString(value).reason


async def test_time_is_judged_by_the_brokers_clock(topic: JsonTopic, log: FakeEventLog) -> None:
    late = a_visit(1, event_time_ms=NOW_MS + 60_001)

    await topic.move([a_record(json.dumps(late).encode())])

    (letter,) = letters(log)
    assert (letter.code, letter.refused_ms) == ("event_time_out_of_range", NOW_MS)


async def test_a_record_is_moved_again_until_the_log_acks(
    topic: JsonTopic, log: FakeEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.ingest.json_topic._RETRY_LOG_S", 0.01)
    log.failure = DependencyUnavailable("dependency_unavailable: down")
    moving = asyncio.create_task(topic.move([a_record(json.dumps(a_visit(1)).encode())]))

    done, _ = await asyncio.wait([moving], timeout=0.1)
    log.failure = None
    await moving

    assert not done
    assert moved(log) == 1


async def test_a_poisoned_topic_stops_before_anything_of_the_batch_is_appended(
    log: FakeEventLog,
) -> None:
    metrics_of = Metrics(CollectorRegistry())
    publisher = Publisher(log, IngestSettings(batch_wait_ms=1), metrics_of)
    await publisher.locate()
    topic = a_topic(publisher, metrics_of, share_max=0.5, window_events=4)
    good, bad = a_record(json.dumps(a_visit(1)).encode()), a_record(b"oops")
    await topic.move([good, bad])

    with pytest.raises(TooManyDeadLetters, match="3 of 4 events refused"):
        await topic.move([bad, bad])

    assert (moved(log), len(letters(log))) == (1, 1)


@pytest.mark.integration
async def test_a_poisoned_topic_is_told_in_the_metrics_and_read_on_after_a_restart(
    kafka_topics: str,
) -> None:
    metrics_of = Metrics(CollectorRegistry())
    producer = EventProducer(kafka_topics)
    publisher = Publisher(producer, IngestSettings(batch_wait_ms=1), metrics_of)
    await publisher.locate()
    for _ in range(20):
        await producer.send("events.json", b"oops", partition=0)
    stopping = asyncio.create_task(
        a_topic(
            publisher, metrics_of, kafka_url=kafka_topics, share_max=0.5, window_events=1
        ).follow()
    )
    async with asyncio.timeout(30):
        while not metrics_of.registry.get_sample_value(
            "rankstream_consumer_stopped", {"consumer": "events.json"}
        ):
            await asyncio.sleep(0.05)
    poisoned = await letters_in(kafka_topics)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)

    following = asyncio.create_task(
        a_topic(
            publisher, Metrics(CollectorRegistry()), kafka_url=kafka_topics, share_max=1.0
        ).follow()
    )
    after = await until_read(kafka_topics, {"events.dead": 20})
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await producer.flush_and_close()

    assert (poisoned, after) == (0, {"events.dead": 20})


@pytest.mark.integration
async def test_records_are_moved_and_their_offsets_committed(kafka_topics: str) -> None:
    metrics_of = Metrics(CollectorRegistry())
    producer = EventProducer(kafka_topics)
    publisher = Publisher(producer, IngestSettings(batch_wait_ms=1), metrics_of)
    await publisher.locate()
    far = TimeLimits(behind_ms_max=1 << 50, ahead_ms_max=1 << 50)
    for number in range(20):
        value = json.dumps(a_visit(number)).encode() if number else b"oops"
        await producer.send("events.json", value, partition=number % 2)

    following = asyncio.create_task(
        a_topic(publisher, metrics_of, kafka_url=kafka_topics, limits=far).follow()
    )
    counts = await until_read(kafka_topics, {"events": 19, "events.dead": 1})
    committed = await until_committed(kafka_topics, [10, 10])
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await producer.flush_and_close()

    assert counts == {"events": 19, "events.dead": 1}
    assert committed == [10, 10]


async def letters_in(bootstrap: str) -> int:
    reader = LogReader(bootstrap, [topics.EVENTS_DEAD.name])
    count = 0
    while not reader.caught_up:
        count += len(await reader.poll(100, 0.2))
    await reader.close()
    return count


async def until_read(bootstrap: str, wanted: dict[str, int]) -> dict[str, int]:
    reader = LogReader(bootstrap, list(wanted))
    counts = dict.fromkeys(wanted, 0)
    async with asyncio.timeout(30):
        while counts != wanted:
            for record in await reader.poll(100, 0.2):
                value = record.value or b""
                counts[record.topic] += len(decode_batch(value)) if record.topic == "events" else 1
    await reader.close()
    return counts


async def until_committed(bootstrap: str, wanted: list[int]) -> list[int]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP})
    places = [TopicPartition("events.json", partition) for partition in range(2)]
    offsets: list[int] = []
    async with asyncio.timeout(30):
        while offsets != wanted:
            found = await asyncio.to_thread(consumer.committed, places, 5.0)
            offsets = [place.offset for place in found]
    await asyncio.to_thread(consumer.close)
    return offsets
