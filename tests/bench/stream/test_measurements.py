"""The measurements themselves, small, on servers of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.stream import freshness as freshness_module
from bench.stream import recovery as recovery_module
from bench.stream.freshness import freshness
from bench.stream.recovery import recoveries
from bench.stream.servers import Servers, started
from bench.stream.throughput import Case, saturated, shared_out

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with started() as running:
        yield running


def test_throughput_counts_every_event_of_a_full_log(servers: Servers) -> None:
    rate = saturated(servers, Case(size=100, events=30_000))

    assert rate.per_cpu_s > 0
    assert rate.per_wall_s > 0


def test_two_workers_share_the_partitions(servers: Servers) -> None:
    assert shared_out(servers, Case(size=100, events=30_000), workers=2).per_cpu_s > 0


def test_freshness_waits_for_every_record_and_every_probe(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness_module, "WARM_UP_S", 1.0)
    monkeypatch.setattr(freshness_module, "WINDOW_S", 3.0)

    (found,) = freshness(servers, 1_000, windows=1)

    assert 0 < found.user_ms[0] <= found.user_ms[1]
    assert 0 < found.item_ms[0] <= found.item_ms[1]
    assert found.per_cpu_s > 0


def test_a_killed_worker_is_followed_by_one_that_writes_again(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_module, "BEFORE_S", 2.0)

    (found,) = recoveries(servers, users=1_000, kills=1)

    assert found.detected_s > 0
    assert 0 <= found.first_s <= found.all_s
