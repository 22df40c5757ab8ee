"""The documented way to more partitions: copy the log, let the workers build all else from it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rankstream import cli, topics
from rankstream.adapters.kafka import LogReader
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.client import LogProducer
from rankstream.contracts.events import Click, Impression, ItemUpdate, Purchase
from rankstream.contracts.events import Message as AnyEvent
from rankstream.contracts.ids import new_id
from tests.services.features.embedded_service import Service
from tests.services.features.log_reference import Label, labels_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MORE = 6
USERS = [f"user-{number}" for number in range(40)]
ITEMS = [f"item-{number}" for number in range(30)]
CATEGORIES = [f"category-{number}" for number in range(5)]


def traffic(slates: int, seed: int) -> list[AnyEvent]:
    """Items, then slates with some clicks and purchases, a millisecond apart."""
    rng, now_ms = random.Random(seed), time.time_ns() // 1_000_000
    events: list[AnyEvent] = [
        ItemUpdate(item_id=item, category=rng.choice(CATEGORIES), updated_ms=now_ms)
        for item in ITEMS
    ]
    for number in range(slates):
        user, request, at_ms = rng.choice(USERS), new_id(), now_ms + number
        for position, item in enumerate(rng.sample(ITEMS, 5)):
            about: dict[str, Any] = {"user_id": user, "request_id": request, "item_id": item}
            about |= {"event_time_ms": at_ms, "category": rng.choice(CATEGORIES)}
            events.append(Impression(event_id=new_id(), position=position, **about))
            if rng.random() < 0.4:
                events.append(Click(event_id=new_id(), **about))
            if rng.random() < 0.1:
                events.append(Purchase(event_id=new_id(), value=2.5, **about))
    return events


def settled(counts: dict[str, Any]) -> bool:
    lags = (counts["events_lag"], counts["updates_lag"], counts["items_lag"])
    waiting = (counts["open_labels"], counts["open_sessions"])
    return counts["folded"] > 0 and not any((*lags, *waiting))


def rows(redis_url: str) -> dict[str, list[bytes]]:
    """Rows of all users, items and categories, without their places in the log."""

    async def read() -> dict[str, list[bytes]]:
        store = RedisFeatureStore(redis_url, timeout_s=5)
        users = [await store.user(user) for user in USERS]
        items, categories = await store.items(ITEMS), await store.categories(CATEGORIES)
        await store.close()
        return {
            "users": [unplaced(row) for row in users],
            "items": [unplaced(items[at : at + 1]) for at in range(len(ITEMS))],
            "categories": [unplaced(categories[at : at + 1]) for at in range(len(CATEGORIES))],
        }

    return asyncio.run(read())


def unplaced(found: Any) -> bytes:
    row = np.array(found)
    for name in ("partition", "offset", "items_offset"):
        if name in (row.dtype.names or ()):
            row[name] = 0
    return row.tobytes()


def labels(bootstrap: str) -> dict[tuple[str, str, str], Label]:
    async def read() -> list[bytes]:
        reader = LogReader(bootstrap, [topics.LABELS.name])
        values: list[bytes] = []
        while not reader.caught_up:
            values += [record.value or b"" for record in await reader.poll(1_000, 0.2)]
        await reader.close()
        return values

    return labels_of(asyncio.run(read()))


def fold(service: Service) -> int:
    """Run the service until nothing waits; how many partitions it worked on."""
    service.start()
    service.wait(settled, 90)
    partitions = len(service.counts()["partitions"])
    assert service.stop() == 0
    return partitions


def test_features_and_labels_are_the_same_with_more_partitions(
    new_service: Callable[..., Service],
    kafka_topics: str,
    second_kafka: str,
    clean_redis: str,
    tmp_path: Path,
) -> None:
    other_redis = clean_redis.removesuffix("/0") + "/1"
    old = new_service(SESSION_GAP_MS="3000")
    new = new_service(
        SESSION_GAP_MS="3000",
        KAFKA_URL=second_kafka,
        REDIS_URL=other_redis,
        SNAPSHOTS=str(tmp_path / "new" / "snapshots"),
        LAKE=str(tmp_path / "new" / "lake"),
    )
    send(kafka_topics, traffic(150, seed=3))
    assert fold(old) == topics.EVENTS.partitions

    copied = CliRunner().invoke(
        cli.app,
        ["--kafka-url", kafka_topics, "repartition", "--to", second_kafka, "--partitions", "6"],
    )
    assert copied.exit_code == 0, copied.output
    assert fold(new) == MORE

    assert rows(other_redis) == rows(clean_redis)
    assert labels(second_kafka) == labels(kafka_topics)
    assert len(labels(second_kafka)) == 150 * 5


def send(bootstrap: str, events: Sequence[AnyEvent]) -> None:
    with LogProducer(bootstrap) as log:
        for first in range(0, len(events), 50):
            log.send(events[first : first + 50])
