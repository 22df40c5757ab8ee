"""Following a topic through refusals and outages."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from rankstream.adapters import follow as module
from rankstream.adapters.follow import follow
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.errors import DependencyUnavailable, InvalidArtifact

Positions = dict[tuple[str, int], int]


class FakeReader:
    """Gives values one by one from an offset; fails before the offsets named."""

    def __init__(self, values: list[bytes], start: int, fails_at: set[int]) -> None:
        self.values, self.offset, self.fails_at = values, start, fails_at
        self.closed = False

    @property
    def caught_up(self) -> bool:
        return self.offset >= len(self.values)

    def positions(self) -> Positions:
        return {("models", 0): self.offset}

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        await asyncio.sleep(0)
        if self.offset in self.fails_at:
            self.fails_at.remove(self.offset)
            raise DependencyUnavailable("dependency_unavailable: no broker")
        if self.caught_up:
            return []
        self.offset += 1
        return [Record("models", 0, self.offset - 1, 0, b"k", self.values[self.offset - 1])]

    async def close(self) -> None:
        self.closed = True


class Run:
    """What a follower did with a log."""

    def __init__(self, values: list[bytes], fails_at: set[int]) -> None:
        self.registry = CollectorRegistry()
        self.readers: list[FakeReader] = []
        self.folded: list[bytes] = []
        self.caught_up = asyncio.Event()
        self.values, self.fails_at = values, fails_at

    def open(self, positions: Positions) -> FakeReader:
        start = positions.get(("models", 0), 0)
        self.readers.append(FakeReader(self.values, start, self.fails_at))
        return self.readers[-1]

    async def fold(self, record: Record) -> None:
        assert record.value is not None
        if record.value == b"bad":
            raise InvalidArtifact("invalid_artifact: bad")
        self.folded.append(record.value)

    async def until_caught_up(self) -> None:
        task = asyncio.create_task(
            follow(
                self.open,
                self.fold,
                metrics_of=Metrics(self.registry),
                on_caught_up=self.caught_up.set,
            )
        )
        await asyncio.wait_for(self.caught_up.wait(), 5.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)


async def test_a_refused_record_is_counted_and_the_rest_is_folded() -> None:
    run = Run([b"a", b"bad", b"c"], set())

    await run.until_caught_up()

    assert run.folded == [b"a", b"c"]
    labels = {"topic": "models", "code": "invalid_artifact"}
    assert run.registry.get_sample_value("rankstream_follow_refused_total", labels) == 1


async def test_after_an_outage_it_goes_on_where_it_was() -> None:
    run = Run([b"a", b"b", b"c"], {0, 2})

    await run.until_caught_up()

    assert run.folded == [b"a", b"b", b"c"]
    assert [reader.closed for reader in run.readers] == [True, True, True]
    assert run.registry.get_sample_value("rankstream_follow_restarts_total") == 2
