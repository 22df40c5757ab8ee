"""A group that works for nobody, and one that does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, ConsumerGroupState

from rankstream import topics
from services.features.membership import group_is_idle, works_for_nobody

ANSWER_S = 40.0


@contextmanager
def a_member(bootstrap: str, group: str, topic: str) -> Iterator[Consumer]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("state", "owned", "idle"),
    [
        (ConsumerGroupState.STABLE, [[], []], True),
        (ConsumerGroupState.STABLE, [[], ["events"]], False),
        (ConsumerGroupState.PREPARING_REBALANCING, [[], []], False),
        (ConsumerGroupState.STABLE, [], False),
    ],
)
def test_a_stable_group_whose_members_have_nothing_works_for_nobody(
    state: ConsumerGroupState, owned: list[list[str]], idle: bool
) -> None:
    assert works_for_nobody(state, owned) is idle


@pytest.mark.integration
async def test_a_group_at_work_is_not_idle(kafka_topics: str) -> None:
    group = f"busy-{uuid4()}"

    with a_member(kafka_topics, group, topics.EVENTS.name) as member:
        deadline = time.monotonic() + ANSWER_S
        while not member.assignment() and time.monotonic() < deadline:
            member.poll(0.2)
        found = await group_is_idle(kafka_topics, group)
        working = bool(member.assignment())

    assert (working, found) == (True, False)


@pytest.mark.integration
async def test_a_group_that_does_not_exist_is_not_idle(kafka_topics: str) -> None:
    assert await group_is_idle(kafka_topics, f"none-{uuid4()}") is False
