"""A stream of which too much is refused stops the service, visibly, and loses nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.events import Visit
from rankstream.contracts.ids import new_id, partition_of
from rankstream.pb import events_pb2 as pb
from tests.services.features.embedded_service import Service
from tests.services.features.log_reference import read_log

pytestmark = pytest.mark.integration

POISON = 30
USER = "user-1"
PARTITION = partition_of(USER, topics.EVENTS.partitions)
WAIT_S = 60.0
POLL_S = 0.1


def produce(bootstrap: str, records: Sequence[bytes]) -> None:
    async def send() -> None:
        producer = EventProducer(bootstrap)
        await asyncio.gather(
            *(producer.send(topics.EVENTS.name, value, partition=PARTITION) for value in records)
        )
        await producer.flush_and_close()

    asyncio.run(send())


def a_visit() -> bytes:
    now_ms = time.time_ns() // 1_000_000
    return encode_batch([Visit(event_id=new_id(), user_id=USER, event_time_ms=now_ms)])


def dead_offsets(bootstrap: str) -> list[int]:
    records = [r for log in read_log(bootstrap, topics.EVENTS_DEAD).values() for r in log]
    letters = [pb.DeadLetter.FromString(record.value or b"") for record in records]
    assert all(letter.original == b"poison" for letter in letters)
    return sorted({letter.offset for letter in letters})


def not_ready_because_of(service: Service, part: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = service.get("/readyz")
        reasons: dict[str, str] = answer.json()["reasons"] if answer is not None else {}
        if part in reasons:
            assert answer is not None
            assert answer.status_code == 503
            return reasons[part]
        time.sleep(POLL_S)
    raise AssertionError(service.log.read_text()[-4_000:])


def test_a_poisoned_stream_stops_the_service_until_it_is_restarted_and_loses_nothing(
    new_service: Callable[..., Service], kafka_topics: str
) -> None:
    service = new_service(DEAD_SHARE_MAX="0.1", DEAD_WINDOW_EVENTS="20")
    produce(kafka_topics, [a_visit(), *[b"poison"] * POISON, a_visit()])
    service.start()

    reason = not_ready_because_of(service, "dead_letters")
    metrics = service.get("/metrics")
    stopped_with = dead_offsets(kafka_topics)
    assert service.stop() == 0

    assert "too_many_dead_letters" in reason
    assert "DEAD_SHARE_MAX" in reason
    assert metrics is not None
    assert 'rankstream_consumer_stopped{consumer="features"} 1.0' in metrics.text
    assert len(stopped_with) < POISON
    mended = new_service(DEAD_SHARE_MAX="1")
    mended.start()
    mended.wait(lambda counts: counts["events_lag"] == 0 and counts["events"] == POISON + 2)
    counts = mended.counts()
    assert (counts["folded"], counts["refused"]) == (2, POISON)
    assert dead_offsets(kafka_topics) == list(range(1, POISON + 1))
