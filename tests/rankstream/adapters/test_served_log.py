"""The record of one answer, found on the real Kafka."""

from __future__ import annotations

import pytest

from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.served_log import find_served
from rankstream.pb.events_pb2 import ServedSlate

pytestmark = pytest.mark.integration


async def test_the_first_record_of_an_answer_is_found(kafka_topics: str) -> None:
    producer = EventProducer(kafka_topics, client_id="test")
    slates = [
        ServedSlate(request_id="r1", user_id="u1", item_id=["r2"]),
        ServedSlate(request_id="r2", user_id="u1", item_id=["first"]),
        ServedSlate(request_id="r2", user_id="u1", item_id=["second"]),
    ]
    for body in (b"\xff r2", *(slate.SerializeToString() for slate in slates)):
        await producer.send(topics.SERVED.name, body, key=b"u1")
    await producer.flush_and_close()

    assert await find_served(kafka_topics, "r2") == slates[1].SerializeToString()
    assert await find_served(kafka_topics, "r9") is None
