"""What good and bad input get over HTTP, on the fake log and on the real one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.apps import build_apps
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import decode_batch, event_at
from rankstream.contracts.ids import partition_of
from rankstream.errors import DependencyUnavailable
from rankstream.pb import events_pb2 as pb
from rankstream.ports import EventLog
from rankstream.testing import FakeEventLog
from services.ingest.app import LOG, Intake, routes, scope_of, watch_log
from services.ingest.publisher import Publisher
from services.ingest.settings import IngestSettings

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
DOWN = DependencyUnavailable("dependency_unavailable: the log is down")


def an_event(number: int = 0, **changes: Any) -> dict[str, Any]:
    base = {
        "kind": "rate",
        "event_id": str(UUID(int=number)),
        "user_id": f"u{number}",
        "item_id": "i",
        "value": 4.0,
        "event_time_ms": NOW_MS,
    }
    return base | changes


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in an_event(7).items() if key != name}


def an_app(log: EventLog, settings: IngestSettings) -> tuple[FastAPI, Publisher, Health]:
    registry = CollectorRegistry()
    metrics_of = Metrics(registry)
    health = Health(LOG)
    publisher = Publisher(log, settings, metrics_of)
    intake = Intake(settings, publisher=publisher, metrics_of=metrics_of, now_ms=lambda: NOW_MS)
    apps = build_apps(
        "ingest",
        routes(intake),
        health,
        registry,
        access=None,
        scope_of=scope_of,
        body_bytes_max=settings.body_bytes_max,
    )
    return apps.admin, publisher, health


def a_client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@dataclass
class Gate:
    """An ingest service in front of a log, and what that log holds."""

    client: httpx.AsyncClient
    read: Callable[[str], Any]
    fake: FakeEventLog | None = None
    publisher: Publisher | None = None

    async def values(self, topic: str) -> list[bytes]:
        found: list[bytes] = await self.read(topic)
        return found

    async def letters(self) -> list[pb.DeadLetter]:
        return [pb.DeadLetter.FromString(v) for v in await self.values(topics.EVENTS_DEAD.name)]

    async def event_ids(self) -> list[str]:
        found = []
        for value in await self.values(topics.EVENTS.name):
            columns = decode_batch(value)
            found += [event_at(columns, row).event_id for row in range(len(columns))]
        return sorted(found)


@pytest.fixture
async def fake_gate() -> AsyncIterator[Gate]:
    log = FakeEventLog()
    app, publisher, _ = an_app(log, IngestSettings(batch_wait_ms=1))
    await publisher.locate()

    async def read(topic: str) -> list[bytes]:
        return log.values(topic)

    async with a_client(app) as client:
        yield Gate(client, read, log, publisher)


@pytest.fixture(
    params=["fake", pytest.param("kafka", marks=pytest.mark.integration)],
)
async def gate(request: pytest.FixtureRequest) -> AsyncIterator[Gate]:
    if request.param == "fake":
        log = FakeEventLog()
        app, publisher, _ = an_app(log, IngestSettings(batch_wait_ms=1))
        await publisher.locate()

        async def read_fake(topic: str) -> list[bytes]:
            return log.values(topic)

        async with a_client(app) as client:
            yield Gate(client, read_fake, log, publisher)
        return
    bootstrap: str = request.getfixturevalue("kafka_topics")
    producer = EventProducer(bootstrap)

    async def read(topic: str) -> list[bytes]:
        reader = LogReader(bootstrap, [topic])
        values: list[bytes] = []
        async with asyncio.timeout(30):
            while not reader.caught_up:
                values += [r.value or b"" for r in await reader.poll(1_000, 0.2)]
        await reader.close()
        return values

    app, publisher, _ = an_app(producer, IngestSettings(batch_wait_ms=1))
    await publisher.locate()
    async with a_client(app) as client:
        yield Gate(client, read, None, publisher)
    await producer.flush_and_close()


# Issue "What bad input gets": bytes of one event -> its code.
BAD_EVENTS = {
    "not JSON": (b"oops", "malformed_event"),
    "half an object": (b'{"kind":"rate"', "malformed_event"),
    "a number": (b"5", "malformed_event"),
    "wrong UTF-8": (b'{"kind":"rate","user_id":"\xff"}', "malformed_event"),
    "nested too deep": (b"[" * 3_000 + b"]" * 3_000, "malformed_event"),
    "unknown kind": (json.dumps(an_event(7, kind="applause")).encode(), "unknown_kind"),
    "no kind": (json.dumps(without("kind")).encode(), "unknown_kind"),
    "tick": (json.dumps(an_event(7, kind="tick")).encode(), "unknown_kind"),
    "no event_id": (json.dumps(without("event_id")).encode(), "invalid_event"),
    "event_id no UUID": (json.dumps(an_event(7, event_id="x")).encode(), "invalid_event"),
    "no user_id": (json.dumps(without("user_id")).encode(), "invalid_event"),
    "empty user_id": (json.dumps(an_event(7, user_id="")).encode(), "invalid_event"),
    "empty item_id": (json.dumps(an_event(7, item_id="")).encode(), "invalid_event"),
    "item_id too long": (json.dumps(an_event(7, item_id="i" * 257)).encode(), "invalid_event"),
    "user_id a number": (json.dumps(an_event(7, user_id=5)).encode(), "invalid_event"),
    "time as text": (json.dumps(an_event(7, event_time_ms="now")).encode(), "invalid_event"),
    "time zero": (json.dumps(an_event(7, event_time_ms=0)).encode(), "invalid_event"),
    "NaN": (json.dumps(an_event(7, value=float("nan"))).encode(), "invalid_event"),
    "infinity": (json.dumps(an_event(7, value=float("inf"))).encode(), "invalid_event"),
    "unknown field": (json.dumps(an_event(7, colour="red")).encode(), "invalid_event"),
    "far future": (
        json.dumps(an_event(7, event_time_ms=NOW_MS + 60_001)).encode(),
        "event_time_out_of_range",
    ),
    "far past": (
        json.dumps(an_event(7, event_time_ms=NOW_MS - 400 * DAY_MS - 1)).encode(),
        "event_time_out_of_range",
    ),
    "seconds for ms": (
        json.dumps(an_event(7, event_time_ms=NOW_MS // 1_000)).encode(),
        "event_time_out_of_range",
    ),
    "100 kB of text": (json.dumps(an_event(7, query="q" * 100_000)).encode(), "too_large"),
}
STATUS = {"malformed_event": 400, "too_large": 413}


@pytest.mark.parametrize(("bad", "code"), BAD_EVENTS.values(), ids=BAD_EVENTS)
async def test_a_bad_event_alone_is_refused_by_name(fake_gate: Gate, bad: bytes, code: str) -> None:
    reply = await fake_gate.client.post("/v1/events", content=bad)

    assert reply.status_code == STATUS.get(code, 422)
    assert reply.json()["error"]["code"] == code
    assert not reply.json()["error"]["retryable"]
    (letter,) = await fake_gate.letters()
    assert (letter.code, letter.original) == (code, bad)
    assert await fake_gate.event_ids() == []


@pytest.mark.parametrize(("bad", "code"), BAD_EVENTS.values(), ids=BAD_EVENTS)
async def test_a_bad_line_never_rejects_its_neighbours(gate: Gate, bad: bytes, code: str) -> None:
    lines = [json.dumps(an_event(1)).encode(), bad, json.dumps(an_event(2)).encode()]

    reply = await gate.client.post("/v1/events:ndjson", content=b"\n".join(lines))

    assert reply.status_code == 202
    assert reply.json()["accepted"] == 2
    assert [(r["index"], r["code"]) for r in reply.json()["rejected"]] == [(1, code)]
    assert await gate.event_ids() == [str(UUID(int=1)), str(UUID(int=2))]
    (letter,) = await gate.letters()
    assert (letter.code, letter.original, letter.source) == (code, bad, "ingest")
    assert (letter.partition, letter.content_type) == (-1, "application/json")


async def test_a_bad_element_never_rejects_the_rest_of_an_array(gate: Gate) -> None:
    body = json.dumps([an_event(1), an_event(2, user_id=""), an_event(3)])

    reply = await gate.client.post("/v1/events:batch", content=body)

    (refused,) = reply.json()["rejected"]
    assert (reply.status_code, reply.json()["accepted"]) == (202, 2)
    assert (refused["index"], refused["event_id"]) == (1, str(UUID(int=2)))
    assert "user_id" in refused["message"]
    assert await gate.event_ids() == [str(UUID(int=1)), str(UUID(int=3))]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/events:batch", b"[{", 400, "malformed_event"),
        ("/v1/events:batch", b"{}", 400, "malformed_event"),
        ("/v1/events:batch", b"[]", 422, "invalid_request"),
        ("/v1/events:ndjson", b"\n\n", 422, "invalid_request"),
        ("/v1/events:ndjson", b"{}\n" * 10_001, 413, "too_large"),
        ("/v1/events", b" " * 10_000_000, 413, "too_large"),
        ("/v1/events:batch", b"[" + b" " * 10_000_000, 413, "too_large"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused_whole(
    fake_gate: Gate, path: str, body: bytes, status: int, code: str
) -> None:
    reply = await fake_gate.client.post(path, content=body)

    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert fake_gate.fake is not None
    assert fake_gate.fake.records == []


async def test_ten_thousand_events_are_accepted_in_batches_of_their_partitions(
    gate: Gate,
) -> None:
    body = b"\n".join(json.dumps(an_event(n)).encode() for n in range(10_000))

    reply = await gate.client.post("/v1/events:ndjson", content=body)

    assert (reply.status_code, reply.json()) == (202, {"accepted": 10_000, "rejected": []})
    assert await gate.event_ids() == [str(UUID(int=n)) for n in range(10_000)]
    records = await gate.values(topics.EVENTS.name)
    assert max(len(decode_batch(record)) for record in records) == 500


async def test_a_record_holds_events_of_its_partition_only(fake_gate: Gate) -> None:
    body = json.dumps([an_event(n) for n in range(100)])

    await fake_gate.client.post("/v1/events:batch", content=body)

    assert fake_gate.fake is not None
    for record in fake_gate.fake.records:
        columns = decode_batch(record.value or b"")
        users = {event_at(columns, row).user_id for row in range(len(columns))}
        assert {partition_of(user, 4) for user in users} == {record.partition}


async def test_items_go_to_their_topic_under_their_id(fake_gate: Gate) -> None:
    item = {"kind": "item_update", "item_id": "i1", "category": "drama", "updated_ms": NOW_MS}

    reply = await fake_gate.client.post("/v1/events", json=item)

    assert reply.status_code == 202
    assert fake_gate.fake is not None
    (record,) = fake_gate.fake.records
    assert (record.topic, record.key) == ("items", b"i1")
    assert pb.Item.FromString(record.value or b"").category == "drama"


async def test_a_repeated_event_id_is_let_through() -> None:
    log = FakeEventLog()
    app, publisher, _ = an_app(log, IngestSettings(batch_wait_ms=1))
    await publisher.locate()

    async with a_client(app) as client:
        reply = await client.post("/v1/events:batch", json=[an_event(1), an_event(1)])

    assert reply.json()["accepted"] == 2


async def test_the_answer_waits_for_the_ack(fake_gate: Gate) -> None:
    assert fake_gate.fake is not None
    fake_gate.fake.answering.clear()
    request = asyncio.create_task(fake_gate.client.post("/v1/events", json=an_event()))

    done, _ = await asyncio.wait([request], timeout=0.1)
    fake_gate.fake.answering.set()
    reply = await request

    assert not done
    assert reply.status_code == 202


async def test_a_full_queue_takes_none_of_a_request_and_says_when_to_come_back() -> None:
    log = FakeEventLog()
    log.answering.clear()
    app, publisher, _ = an_app(log, IngestSettings(batch_wait_ms=1, queue_events_max=10_000))
    await publisher.locate()
    async with a_client(app) as client:
        held = asyncio.create_task(
            client.post("/v1/events:batch", json=[an_event(n) for n in range(9_999)])
        )
        while publisher.queued < 9_999:
            await asyncio.sleep(0)

        refused = await client.post("/v1/events:batch", json=[an_event(1), an_event(2)])
        log.answering.set()
        kept = await held

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert kept.json()["accepted"] == 9_999
    assert publisher.queued == 0


async def test_a_log_that_is_down_is_told_with_the_events_that_have_no_ack(
    fake_gate: Gate,
) -> None:
    assert fake_gate.fake is not None
    fake_gate.fake.failure = DOWN
    body = json.dumps([an_event(0), {"kind": "?"}, an_event(2)])

    reply = await fake_gate.client.post("/v1/events:batch", content=body)

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert reply.json()["error"]["code"] == "dependency_unavailable"
    assert reply.json()["error"]["retryable"]
    assert (reply.json()["accepted"], reply.json()["failed"]) == (0, [0, 2])
    assert [refused["index"] for refused in reply.json()["rejected"]] == [1]
    assert fake_gate.publisher is not None
    assert fake_gate.publisher.queued == 0


async def test_before_the_log_has_answered_nothing_is_accepted() -> None:
    app, _, _ = an_app(FakeEventLog(), IngestSettings())

    async with a_client(app) as client:
        reply = await client.post("/v1/events", json=an_event())

    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")


async def test_readiness_follows_the_log() -> None:
    log = FakeEventLog()
    log.failure = DOWN
    app, publisher, health = an_app(log, IngestSettings())

    async def state() -> int:
        watching = asyncio.create_task(watch_log(log, publisher, health))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        watching.cancel()
        async with a_client(app) as client:
            return (await client.get("/readyz")).status_code

    down = await state()
    log.failure = None
    up = await state()

    assert (down, up) == (503, 200)


async def test_drain_appends_what_waits_for_company() -> None:
    log = FakeEventLog()
    app, publisher, _ = an_app(log, IngestSettings(batch_wait_ms=10_000))
    await publisher.locate()
    async with a_client(app) as client:
        request = asyncio.create_task(client.post("/v1/events", json=an_event()))
        while not publisher.queued:
            await asyncio.sleep(0)

        await publisher.drain()
        reply = await request

    assert reply.status_code == 202
    assert len(log.values(topics.EVENTS.name)) == 1


async def test_metrics_count_what_was_accepted_and_refused(fake_gate: Gate) -> None:
    await fake_gate.client.post("/v1/events:batch", json=[an_event(1), {"kind": "?"}])

    text = (await fake_gate.client.get("/metrics")).text

    assert 'ingest_accepted_total{kind="rate",source="http"} 1.0' in text
    assert 'ingest_rejected_total{code="unknown_kind",source="http"} 1.0' in text
    assert 'ingest_dead_letters_total{code="unknown_kind"} 1.0' in text
    assert "ingest_queue_events 0.0" in text
