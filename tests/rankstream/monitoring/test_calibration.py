"""Calibration against scikit-learn, a plain loop, and simulated delayed clicks."""

from __future__ import annotations

import math
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from rankstream.monitoring.calibration import (
    PCTR_EDGES,
    Calibration,
    observed_over_expected,
    reliability,
)
from rankstream.monitoring.freshness import Delays

ROWS = st.lists(st.tuples(st.floats(0, 1), st.integers(-1, 1), st.integers(-1, 1)), max_size=40)


def summary_of(pctr: np.ndarray, clicked: np.ndarray) -> Calibration:
    return Calibration.of(pctr, np.ones(len(pctr), dtype=np.int64), clicked.astype(np.int64))


def rows_summary(rows: list[tuple[float, int, int]]) -> Calibration:
    return Calibration.of(
        np.array([p for p, _, _ in rows]),
        np.array([i for _, i, _ in rows], dtype=np.int64),
        np.array([c for _, _, c in rows], dtype=np.int64),
    )


def as_lists(summary: Calibration) -> list[list[int]]:
    fields = (summary.n, summary.clicks, summary.expected, summary.expected_squares)
    return [field.tolist() for field in fields]


def naive_ece(pctr: np.ndarray, clicked: np.ndarray) -> tuple[float, float]:
    ece, worst = 0.0, 0.0
    bounds = [-1.0, *PCTR_EDGES.tolist(), 2.0]
    for low, high in pairwise(bounds):
        inside = (pctr >= low) & (pctr < high)
        if inside.sum() == 0:
            continue
        gap = abs(pctr[inside].mean() - clicked[inside].mean())
        ece += gap * inside.sum() / len(pctr)
        if inside.sum() >= 100:
            worst = max(worst, gap)
    return ece, worst


@given(parts=st.lists(ROWS, min_size=3, max_size=3))
def test_merging_in_any_grouping_is_bit_equal(
    parts: list[list[tuple[float, int, int]]],
) -> None:
    one, two, three = map(rows_summary, parts)

    left = one.merge(two).merge(three)
    right = three.merge(two.merge(one))

    assert as_lists(left) == as_lists(right) == as_lists(rows_summary([*chain(*parts)]))


@given(rows=ROWS)
def test_taking_back_what_was_added_leaves_nothing(rows: list[tuple[float, int, int]]) -> None:
    taken_back = [(p, -i, -c) for p, i, c in rows]

    whole = rows_summary(rows).merge(rows_summary(taken_back))

    assert as_lists(whole) == as_lists(Calibration.empty())


def test_ece_and_mce_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    pctr = rng.beta(1, 12, size=20_000)
    clicked = rng.random(20_000) < np.minimum(1, pctr * 1.4)

    found = reliability(summary_of(pctr, clicked))

    ece, mce = naive_ece(pctr, clicked)
    assert found.ece == pytest.approx(ece, abs=1e-8)
    assert found.mce == pytest.approx(mce, abs=1e-8)
    assert found.mean_predicted == pytest.approx(pctr.mean(), abs=1e-8)
    assert found.mean_observed == pytest.approx(clicked.mean())


def test_bins_equal_those_of_scikit_learn_where_the_edges_agree() -> None:
    rng = np.random.default_rng(2)
    pctr = rng.uniform(0.4, 0.6, size=5000)
    clicked = rng.random(5000) < pctr

    summary = summary_of(pctr, clicked)

    observed, predicted = calibration_curve(clicked, pctr, n_bins=10)
    used = summary.n > 0
    assert (summary.clicks / np.maximum(summary.n, 1))[used] == pytest.approx(observed)
    assert (summary.expected / 1e9 / np.maximum(summary.n, 1))[used] == pytest.approx(predicted)


def test_the_ece_of_a_perfect_model_has_its_stated_mean() -> None:
    rng = np.random.default_rng(3)
    errors, promised = [], []
    for _ in range(200):
        pctr = rng.beta(2, 20, size=2000)

        found = reliability(summary_of(pctr, rng.random(2000) < pctr))

        errors.append(found.ece)
        promised.append(found.ece_null_mean)
    assert np.mean(errors) == pytest.approx(np.mean(promised), rel=0.05)


def test_without_impressions_there_are_no_numbers() -> None:
    found = reliability(Calibration.empty())
    ratio = observed_over_expected([(Calibration.empty(), 1.0)])

    assert found.n == 0
    assert math.isnan(found.ece)
    assert math.isnan(ratio.ratio)
    assert ratio.verdict(tolerance=0.2, z_limit=3, expected_min=50) == "inconclusive"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (1.5, "fail"), (0.6, "fail")])
def test_a_model_fails_if_it_is_far_off_and_surely_so(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(4)
    pctr = rng.beta(2, 20, size=10_000)
    clicked = rng.random(10_000) < pctr * factor

    ratio = observed_over_expected([(summary_of(pctr, clicked), 1.0)])

    assert ratio.ratio == pytest.approx(factor, abs=0.06)
    assert ratio.verdict(tolerance=0.2, z_limit=3, expected_min=50) == verdict


def test_few_expected_clicks_are_inconclusive_however_far_off() -> None:
    pctr = np.full(100, 0.4)

    ratio = observed_over_expected([(summary_of(pctr, np.ones(100)), 1.0)])

    assert ratio.ratio == pytest.approx(2.5)
    assert ratio.verdict(tolerance=0.2, z_limit=3, expected_min=50) == "inconclusive"


def test_z_without_drift_is_a_standard_normal() -> None:
    rng = np.random.default_rng(5)
    scores = []
    for _ in range(400):
        pctr = rng.beta(2, 20, size=1000)
        scores.append(observed_over_expected([(summary_of(pctr, rng.random(1000) < pctr), 1.0)]).z)

    assert np.mean(scores) == pytest.approx(0, abs=0.2)
    assert np.std(scores) == pytest.approx(1, abs=0.12)


def test_clicks_still_on_their_way_do_not_make_a_good_model_look_bad() -> None:
    rng = np.random.default_rng(6)
    now_ms, delay_mean_ms, n = 300_000, 60_000, 60_000
    pctr = rng.beta(2, 20, size=n)
    shown_ms = rng.uniform(0, now_ms, size=n)
    click_ms = shown_ms + rng.exponential(delay_mean_ms, size=n)
    seen = (rng.random(n) < pctr) & (click_ms <= now_ms)
    delays = Delays.of(rng.exponential(delay_mean_ms, size=20_000))
    panes = []
    for start in range(0, now_ms, 10_000):
        inside = (shown_ms >= start) & (shown_ms < start + 10_000)
        age = now_ms - start - np.linspace(0, 10_000, 11)
        weight = float(delays.share_within(age).mean())
        panes.append((summary_of(pctr[inside], seen[inside]), weight))

    naive = observed_over_expected([(summary, 1.0) for summary, _ in panes])
    weighted = observed_over_expected(panes)

    assert naive.ratio < 0.85
    assert weighted.ratio == pytest.approx(1.0, abs=0.05)
    assert abs(weighted.z) < 3
