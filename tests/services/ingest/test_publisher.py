"""When a batch leaves: full by count, full by size, or after its wait. A flood is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import decode_batch
from rankstream.contracts.events import Visit
from rankstream.errors import QueueFull
from rankstream.testing import FakeEventLog
from services.ingest import publisher as module
from services.ingest.intake import Accepted
from services.ingest.publisher import Outcome, Publisher
from services.ingest.settings import IngestSettings

NEVER_MS = 10_000


def accepted(count: int, *, user: str = "u", size: int = 100, first: int = 0) -> list[Accepted]:
    return [
        Accepted(n, Visit(event_id=str(UUID(int=first + n)), user_id=user, event_time_ms=5), size)
        for n in range(count)
    ]


async def a_publisher(log: FakeEventLog, **settings: int) -> Publisher:
    made = Publisher(log, IngestSettings(**settings), Metrics(CollectorRegistry()))
    await made.locate()
    return made


def sizes(log: FakeEventLog) -> list[int]:
    return [len(decode_batch(value)) for value in log.values(topics.EVENTS.name)]


async def passes(turns: int = 10) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_a_batch_leaves_when_it_is_full_and_the_rest_waits() -> None:
    log = FakeEventLog()
    publisher = await a_publisher(log, batch_events_max=10, batch_wait_ms=NEVER_MS)

    taking = asyncio.create_task(publisher.take(accepted(25), [], source="http"))
    await passes()

    assert sizes(log) == [10, 10]
    await publisher.drain()
    assert sizes(log) == [10, 10, 5]
    assert await taking == Outcome()


async def test_a_batch_leaves_when_its_events_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 1_000)
    log = FakeEventLog()
    publisher = await a_publisher(log, batch_wait_ms=NEVER_MS)

    taking = asyncio.create_task(publisher.take(accepted(9, size=250), [], source="http"))
    await passes()

    assert sizes(log) == [4, 4]
    await publisher.drain()
    await taking


class Clock:
    """Timers of the loop, fired by hand."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def call_later(
        self, delay_s: float, callback: Callable[..., object], *arguments: object
    ) -> asyncio.TimerHandle:
        self.timers.append((delay_s, lambda: callback(*arguments)))
        loop = asyncio.get_running_loop()
        return asyncio.TimerHandle(0, callback, arguments, loop)


async def test_a_batch_that_does_not_fill_leaves_20_ms_after_its_first_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, log = Clock(), FakeEventLog()
    publisher = await a_publisher(log)
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", clock.call_later)
    first = asyncio.create_task(publisher.take(accepted(1), [], source="http"))
    second = asyncio.create_task(publisher.take(accepted(1, first=9), [], source="http"))
    await passes()
    before = sizes(log)

    ((delay_s, flush),) = clock.timers
    flush()

    assert (await first, await second) == (Outcome(), Outcome())
    assert (delay_s, before, sizes(log)) == (0.02, [], [2])


async def test_users_of_different_partitions_do_not_share_a_record() -> None:
    log = FakeEventLog()
    publisher = await a_publisher(log, batch_wait_ms=1)
    events = [*accepted(3, user="user-1"), *accepted(2, user="u42", first=9)]

    await publisher.take(events, [], source="http")

    assert sorted(sizes(log)) == [2, 3]
    assert len({record.partition for record in log.records}) == 2


async def test_a_flood_on_a_log_that_does_not_answer_holds_no_more_than_the_queue() -> None:
    log = FakeEventLog()
    log.answering.clear()
    publisher = await a_publisher(log, queue_events_max=10_000)
    taking = []
    most = 0
    for burst in range(500):
        taking.append(
            asyncio.create_task(publisher.take(accepted(100, first=100 * burst), [], source="http"))
        )
        await asyncio.sleep(0)
        most = max(most, publisher.queued)
    await passes()

    log.answering.set()
    outcomes = await asyncio.gather(*taking, return_exceptions=True)

    refused = sum(isinstance(outcome, QueueFull) for outcome in outcomes)
    assert most == 10_000
    assert refused == 400
    assert sum(sizes(log)) == 10_000
    assert publisher.queued == 0
