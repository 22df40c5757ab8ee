"""The whole service on a real Kafka and Redis: kills, repeats, bad input, fences."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from deltalake import DeltaTable

from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.events import Click, Event, Impression, Purchase
from rankstream.contracts.ids import new_id, partition_of
from rankstream.features.deltas import Entity
from rankstream.features.items import ROWS
from rankstream.features.rows import Rows
from rankstream.pb import events_pb2 as pb
from rankstream.stream.partition import FoldSettings
from services.features.lake_rows import TICK
from tests.services.features.embedded_service import Service
from tests.services.features.log_reference import (
    Expected,
    expected,
    keys_of,
    labels_of,
    read_log,
    unplaced,
    unstamped,
)

pytestmark = pytest.mark.integration

SETTINGS = FoldSettings(lateness_ms=2_000, click_window_ms=5_000, conversion_window_ms=10_000)
PARTITIONS = topics.EVENTS.partitions
USERS = [f"user-{number}" for number in range(60)]
NewService = Callable[..., Service]


def a_slate(user: str, rng: random.Random, now_ms: int) -> list[Event]:
    """Impressions of one request, some clicks, now and then a purchase."""
    request, events = new_id(), list[Event]()
    for position in range(5):
        about: dict[str, Any] = {
            "user_id": user,
            "request_id": request,
            "item_id": f"item-{rng.randrange(40)}-{position}",
            "category": f"category-{rng.randrange(5)}",
        }
        events.append(
            Impression(event_id=new_id(), event_time_ms=now_ms, position=position, **about)
        )
        if rng.random() < 0.3:
            events.append(Click(event_id=new_id(), event_time_ms=now_ms + 5, **about))
            if rng.random() < 0.3:
                events.append(
                    Purchase(event_id=new_id(), event_time_ms=now_ms + 9, value=9.5, **about)
                )
    return events


def traffic(records: int, seed: int) -> list[tuple[int, bytes]]:
    """(partition, record), with one record in ten sent twice."""
    rng, now_ms = random.Random(seed), time.time_ns() // 1_000_000
    out = []
    for number in range(records):
        user = rng.choice(USERS)
        partition = partition_of(user, PARTITIONS)
        record = (partition, encode_batch(a_slate(user, rng, now_ms + number)))
        out += [record] * (2 if rng.random() < 0.1 else 1)
    return out


def produce(bootstrap: str, records: Sequence[tuple[int, bytes]]) -> None:
    async def send() -> None:
        producer = EventProducer(bootstrap)
        await asyncio.gather(
            *(producer.send(topics.EVENTS.name, value, partition=p) for p, value in records)
        )
        await producer.flush_and_close()

    asyncio.run(send())


def end(bootstrap: str) -> int:
    return sum(len(records) for records in read_log(bootstrap, topics.EVENTS).values())


def settled(counts: dict[str, object]) -> bool:
    return (
        counts["events_lag"] == counts["updates_lag"] == 0
        and counts["open_labels"] == 0
        and counts["open_sessions"] == 0
    )


async def _context(store: RedisFeatureStore, query: str, location: str, which: int) -> Rows:
    return (await store.context(query, location))[:, which]


def differences(bootstrap: str, redis_url: str, want: Expected) -> list[str]:
    """What in Redis and in `labels` and `sessions` is not as the log has it."""

    async def found() -> tuple[dict[str, bytes], dict[Entity, dict[str, bytes]]]:
        store = RedisFeatureStore(redis_url, timeout_s=5)
        users = {user: (await store.user(user)).tobytes() for user in sorted(want.users)}
        reads: dict[Entity, Callable[[str], Awaitable[Rows]]] = {
            Entity.ITEM: lambda key: store.items([key]),
            Entity.CATEGORY: lambda key: store.categories([key]),
            Entity.QUERY: lambda key: _context(store, key, "", 0),
            Entity.LOCATION: lambda key: _context(store, "", key, 1),
        }
        keys = {
            entity: {key: unstamped(await read(key), ROWS[entity]) for key in want.keys[entity]}
            for entity, read in reads.items()
        }
        await store.close()
        return users, keys

    users, keys = asyncio.run(found())
    wrong = [f"user {user}" for user, row in want.users.items() if users[user] != row]
    wrong += [
        f"{entity.name.lower()} {key}"
        for entity, rows in want.keys.items()
        for key, row in rows.items()
        if keys[entity][key] != row
    ]
    sent = read_log(bootstrap, topics.LABELS)
    labels = labels_of(record.value or b"" for records in sent.values() for record in records)
    if labels != want.labels:
        wrong.append(f"labels: {len(labels)} of {len(want.labels)}")
    closed = read_log(bootstrap, topics.SESSIONS)
    sessions = {unplaced(r.value or b"") for records in closed.values() for r in records}
    if sessions != want.sessions:
        wrong.append(f"sessions: {len(sessions)} of {len(want.sessions)}")
    return wrong


def test_kills_repeats_and_a_second_worker_change_nothing(
    new_service: NewService, kafka_topics: str, clean_redis: str, tmp_path: Path
) -> None:
    first = new_service(SNAPSHOT_EVERY_S="1", SESSION_GAP_MS="3000")
    second = new_service(SNAPSHOT_EVERY_S="1", SESSION_GAP_MS="3000")
    records = traffic(600, seed=11)
    first.start()
    produce(kafka_topics, records[:200])
    first.wait(lambda counts: counts["events"] > 0)
    produce(kafka_topics, records[200:400])
    first.kill()
    second.start()
    first.start()
    produce(kafka_topics, records[400:])
    first.wait(lambda counts: counts["events"] > 0)
    first.kill()

    second.wait(lambda counts: len(counts["partitions"]) == PARTITIONS and settled(counts), 90)
    counts = second.counts()
    assert second.stop() == 0

    events = read_log(kafka_topics, topics.EVENTS)
    ticks_aside = sum(len(pb.EventBatch.FromString(raw).kind) for _, raw in records)
    want = expected(kafka_topics, FoldSettings(**{**vars(SETTINGS), "session_gap_ms": 3_000}))
    assert differences(kafka_topics, clean_redis, want) == []
    assert want.duplicates > 0
    assert want.labels
    assert want.sessions
    assert counts["events"] == ticks_aside
    assert counts["duplicates"] == want.duplicates
    assert counts["folded"] + counts["duplicates"] + counts["late"] == ticks_aside
    lake = DeltaTable(str(tmp_path / "lake" / "events")).to_pyarrow_table()
    places = set(
        zip(*(lake[name].to_pylist() for name in ("partition", "offset", "row")), strict=True)
    )
    assert len(places) == lake.num_rows == ticks_aside + lake["kind"].to_pylist().count(TICK)
    in_log = {(partition, r.offset) for partition, log in events.items() for r in log}
    assert {place[:2] for place in places} == in_log


def test_a_worker_that_comes_back_from_the_dead_cannot_write(
    new_service: NewService, kafka_topics: str, clean_redis: str
) -> None:
    zombie, heir = new_service(SESSION_GAP_MS="3000"), new_service(SESSION_GAP_MS="3000")
    records = traffic(300, seed=23)
    zombie.start()
    zombie.wait(lambda counts: len(counts["partitions"]) == PARTITIONS)
    produce(kafka_topics, records[:150])
    assert zombie.process is not None
    zombie.process.send_signal(signal.SIGSTOP)
    heir.start()
    heir.wait(lambda counts: len(counts["partitions"]) == PARTITIONS)
    produce(kafka_topics, records[150:])
    heir.wait(lambda counts: counts["events_lag"] == 0)

    zombie.process.send_signal(signal.SIGCONT)
    owned = {"zombie": 0, "heir": 0}

    def shared_out(counts: dict[str, Any]) -> bool:
        # The zombie is fenced and exits, or learns of its loss first and joins the group again.
        assert zombie.process is not None
        owned["heir"] = len(counts["partitions"])
        back = {} if zombie.process.poll() is not None else zombie.counts()
        owned["zombie"] = len(back.get("partitions", ()))
        return sum(owned.values()) == PARTITIONS and settled(counts)

    heir.wait(shared_out, 90)
    want = expected(kafka_topics, FoldSettings(**{**vars(SETTINGS), "session_gap_ms": 3_000}))
    assert differences(kafka_topics, clean_redis, want) == []


def test_bad_records_go_to_the_dead_letters_and_the_rest_is_folded(
    new_service: NewService, kafka_topics: str, clean_redis: str
) -> None:
    service = new_service(SESSION_GAP_MS="3000")
    rng, now_ms = random.Random(3), time.time_ns() // 1_000_000
    slate = a_slate("user-1", rng, now_ms)
    far = Impression(
        event_id=new_id(),
        user_id="user-1",
        request_id="r",
        item_id="far-item",
        event_time_ms=now_ms + 86_400_000,
        position=0,
    )
    partition = partition_of("user-1", PARTITIONS)
    garbage, mixed = b"\xff\x00 not a batch", encode_batch([*slate, far])
    service.start()

    produce(kafka_topics, [(partition, garbage), (partition, mixed)])
    service.wait(lambda counts: counts["events"] == len(slate) + 2 and counts["updates_lag"] == 0)

    counts = service.counts()
    (dead,) = read_log(kafka_topics, topics.EVENTS_DEAD).values()
    letters = [pb.DeadLetter.FromString(record.value or b"") for record in dead]
    assert [(letter.code, letter.original) for letter in letters] == [
        ("invalid_batch", garbage),
        ("event_time_out_of_range", mixed),
    ]
    assert list(letters[1].rows) == [len(slate)]
    assert (counts["folded"], counts["refused"]) == (len(slate), 2)
    # A tick may have moved it with the clock, the far event never.
    watermark_ms = counts["partitions"][str(partition)]["watermark_ms"]
    assert watermark_ms <= time.time_ns() // 1_000_000
    assert "far-item" not in keys_of(kafka_topics)[Entity.ITEM]


def test_redis_that_lost_its_data_is_written_again(
    new_service: NewService, kafka_topics: str, clean_redis: str
) -> None:
    service = new_service(SESSION_GAP_MS="3000")
    records = traffic(60, seed=5)
    service.start()
    produce(kafka_topics, records)
    service.wait(lambda counts: counts["events"] > 0 and settled(counts))
    assert service.stop() == 0

    with redis.Redis.from_url(clean_redis) as client:
        client.flushall()
    service.start()
    service.wait(settled)

    metrics = service.get("/metrics")
    assert metrics is not None
    assert 'rebuilds_total{reason="redis_lost_rows",stage="users"}' in metrics.text
    want = expected(kafka_topics, FoldSettings(**{**vars(SETTINGS), "session_gap_ms": 3_000}))
    assert differences(kafka_topics, clean_redis, want) == []
