"""Memory stays flat while keys come and go; and what would not be flat is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deploy.local.services import Ports
from tests.soak.soak import Plan, run
from tests.soak.traffic import TICK_S, Load, events_at
from tests.soak.verdict import Sample, judge

MB = 1_000_000


def samples(
    *, mb_per_min: float = 0.0, users_per_min: float = 0.0, peak_mb: int = 0
) -> list[Sample]:
    """Ten minutes of a worker of 200 MB, with noise, and a peak now and then."""
    rng = random.Random(3)
    return [
        Sample(
            at_s=float(second),
            rss_bytes=round(
                200 * MB
                + mb_per_min * MB * second / 60
                + rng.uniform(-1, 1) * MB
                + (peak_mb * MB if second % 60 == 0 else 0)
            ),
            users=round(5_000 + users_per_min * second / 60 + rng.randrange(100)),
            items=500,
            redis_keys=5_600,
        )
        for second in range(600)
    ]


def test_noise_and_peaks_are_flat() -> None:
    verdict = judge(samples(peak_mb=80), warm_up_s=60, users_made=60_000)

    assert verdict.problems == ()
    assert abs(verdict.rss_growth_mb) < 1


def test_a_leak_is_told() -> None:
    verdict = judge(samples(mb_per_min=1.5), warm_up_s=60, users_made=60_000)

    (problem,) = verdict.problems
    assert "memory grew by 13" in problem
    assert abs(verdict.rss_slope_mb_per_h - 90) < 3


def test_keys_that_stay_are_told() -> None:
    verdict = judge(samples(users_per_min=200), warm_up_s=60, users_made=60_000)

    (problem,) = verdict.problems
    assert problem.startswith("users grew from")


def test_a_run_in_which_nothing_had_to_expire_proves_nothing() -> None:
    verdict = judge(samples(), warm_up_s=60, users_made=10_000)

    (problem,) = verdict.problems
    assert "nothing had to expire" in problem


def test_traffic_moves_on_to_new_keys() -> None:
    load, rng = Load(), random.Random(1)

    before = {event.user_id for event in events_at(load, 0, 5, rng)}
    after = {event.user_id for event in events_at(load, 60, 5, rng)}

    assert before.isdisjoint(after)
    assert len(events_at(load, 0, 5, rng)) >= load.events_per_s * TICK_S


@pytest.mark.integration
@pytest.mark.slow
def test_two_minutes_of_churn_leave_memory_flat(
    kafka_topics: str, clean_redis: str, tmp_path: Path
) -> None:
    # Too short for the caches of keys to fill; users that stayed would take twice as much.
    load, growth_bytes = Load(users_per_s=200), 40 * MB
    plan = Plan(seconds=120, ttl_s=60, load=load, speed=6, growth_bytes=growth_bytes)

    verdict = run(kafka_topics, clean_redis, tmp_path, Ports.free().features, plan)

    assert verdict.problems == (), verdict
