"""Partitions fold together and dump apart."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.features.beats import first_snapshot_s, until_beat_s
from services.features.stages import ItemStage, UserStage

PARTITIONS = 8
SECONDS = st.floats(0, 1e7, allow_nan=False)
PERIODS = st.floats(0.001, 1.0)
BEATS = st.sampled_from([UserStage.beat, ItemStage.beat])


@given(now_s=SECONDS, period_s=PERIODS, beat=BEATS)
def test_a_beat_comes_within_a_period(now_s: float, period_s: float, beat: float) -> None:
    assert 0 < until_beat_s(now_s, period_s, beat) <= period_s


@given(now_s=SECONDS, later=st.floats(0, 1), period_s=PERIODS, beat=BEATS)
def test_who_asks_later_before_a_beat_gets_the_same_one(
    now_s: float, later: float, period_s: float, beat: float
) -> None:
    wait_s = until_beat_s(now_s, period_s, beat)
    second_s = now_s + later * wait_s

    again_s = second_s + until_beat_s(second_s, period_s, beat)

    # At the beat itself, but for rounding, the next one is a period away.
    assert again_s - (now_s + wait_s) == pytest.approx(0, abs=1e-6) or later > 1 - 1e-3


@given(now_s=SECONDS, period_s=PERIODS)
def test_stage_2_folds_half_a_period_behind_stage_1(now_s: float, period_s: float) -> None:
    first, second = (until_beat_s(now_s, period_s, stage.beat) for stage in (UserStage, ItemStage))

    assert abs(second - first) == pytest.approx(period_s / 2, abs=1e-6)


def test_without_a_linger_nobody_waits() -> None:
    assert until_beat_s(12.3, 0.0, UserStage.beat) == 0


def test_dumps_of_a_worker_lie_apart() -> None:
    every_s = 60.0
    due_s = sorted(
        first_snapshot_s(partition, every_s, stage.beat)
        for partition in range(PARTITIONS)
        for stage in (UserStage, ItemStage)
    )

    assert 0 <= due_s[0]
    assert due_s[-1] < every_s
    gaps = [after - before for before, after in itertools.pairwise(due_s)]
    assert min(gaps) > every_s / (4 * PARTITIONS)
