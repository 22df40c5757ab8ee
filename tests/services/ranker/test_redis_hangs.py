"""A Redis that hangs: a few answers wait for it, the others have kept rows or defaults at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from deploy.local.processes import Processes
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.redis_store import RedisFeatureStore
from rankstream.errors import DependencyUnavailable
from rankstream.features.rating_table import NO_RATINGS
from services.ranker.answers import RedisAnswers
from services.ranker.breaker import Breaker
from services.ranker.enrichment import CIRCUIT_OPEN, TIMEOUT, Degraded, Enriched, Enrichment
from services.ranker.kept_rows import KeptRows
from services.ranker.requests import Context
from tests.services.ranker.fakes import NOW_MS
from tests.services.ranker.test_processes import fill

pytestmark = pytest.mark.integration

TIMEOUT_S = 0.1
LATE_MAX = 3
PROBE_S = 0.5
RECOVERY_S = 10.0


@dataclass
class Reader:
    """What an answer reads, and the process of the Redis that it reads from."""

    enrichment: Enrichment
    answers: RedisAnswers
    registry: CollectorRegistry
    pid: int

    async def enriched(self) -> tuple[Enriched, list[str]]:
        """One answer's candidates, and what was missing."""
        degraded = Degraded()
        user = await self.enrichment.user("u1", degraded)
        found = await self.enrichment.enrich(
            user, ["i7"], Context(), NOW_MS, degraded, withdrawn=False, ratings=NO_RATINGS
        )
        return found, degraded.reasons

    def circuit(self) -> float | None:
        labels = {"dependency": "redis"}
        return self.registry.get_sample_value("rankstream_ranker_circuit_open", labels)

    async def hang(self) -> list[list[str]]:
        """Stop Redis; what is missing in the answers until the circuit is open."""
        os.kill(self.pid, signal.SIGSTOP)
        return [(await self.enriched())[1] for _ in range(LATE_MAX)]


@pytest.fixture
async def reader(clean_redis: str, embedded_processes: Processes) -> AsyncIterator[Reader]:
    fill(clean_redis)
    registry = CollectorRegistry()
    metrics_of = Metrics(registry)
    breaker = Breaker(
        "redis",
        timeout_s=TIMEOUT_S,
        late_max=LATE_MAX,
        open_s=PROBE_S,
        clock_s=time.monotonic,
        metrics_of=metrics_of,
    )
    store = RedisFeatureStore(clean_redis, timeout_s=TIMEOUT_S)
    kept = KeptRows(store, age_s=0, rows_max=100, clock_s=time.monotonic, metrics_of=metrics_of)
    answers = RedisAnswers(clean_redis, timeout_s=TIMEOUT_S, ttl_s=60, breaker=breaker)
    enrichment = Enrichment(kept, timeout_s=TIMEOUT_S, breaker=breaker)
    pid = embedded_processes.records()["redis"].pid
    reader = Reader(enrichment, answers, registry, pid)
    assert (await reader.enriched())[1] == []
    yield reader
    os.kill(pid, signal.SIGCONT)
    await answers.close()
    await store.close()


async def test_a_few_answers_wait_for_it_and_the_others_do_not(reader: Reader) -> None:
    waited = await reader.hang()

    began_s = time.monotonic()
    asked = [(await reader.enriched())[1] for _ in range(10)]
    took_s = time.monotonic() - began_s

    assert waited == [[TIMEOUT]] * LATE_MAX
    assert reader.circuit() == 1
    assert asked[0] == [TIMEOUT, CIRCUIT_OPEN]
    assert took_s < 3 * TIMEOUT_S  # ten deadlines without the circuit


async def test_rows_that_are_kept_still_serve(reader: Reader) -> None:
    await reader.hang()

    found, _ = await reader.enriched()

    assert found.of_items("totals")[0, 0] == 7


async def test_an_earlier_answer_is_not_waited_for_either(reader: Reader) -> None:
    await reader.hang()

    with pytest.raises(DependencyUnavailable, match="redis does not answer in time"):
        await reader.answers.get("r1")


async def test_it_is_used_again_once_it_answers(reader: Reader) -> None:
    await reader.hang()
    os.kill(reader.pid, signal.SIGCONT)

    async with asyncio.timeout(RECOVERY_S):
        while (await reader.enriched())[1]:
            await asyncio.sleep(PROBE_S)

    assert reader.circuit() == 0
