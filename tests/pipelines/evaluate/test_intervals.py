"""Do intervals hold the truth as often as they say, on users whose rows are alike?"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipelines.evaluate.impressions import Doubles, Impressions
from pipelines.evaluate.intervals import (
    Difference,
    Draws,
    Interval,
    Resampled,
    difference,
    interval,
    resample,
)
from pipelines.evaluate.weighted import METRICS, ratio_of_sums
from rankstream.errors import InvalidInput
from tests.pipelines.evaluate.candidates import clustered, naive_replicates, sigmoid


def test_the_interval_of_a_mean_is_that_of_its_users_in_closed_form() -> None:
    rng = np.random.default_rng(1)
    users, rows = 2_000, 5
    user = np.repeat(np.arange(users), rows)
    value = rng.normal(size=users)[user] + 3
    mean = ratio_of_sums(value, np.ones(len(user)), user, users)
    by_user = value[::rows]
    expected = stats.t.interval(0.95, users - 1, by_user.mean(), stats.sem(by_user))

    found = interval(resample({"mean": mean}, Draws(users, 4_000))["mean"])

    assert found.value == pytest.approx(by_user.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.004)


def test_the_interval_of_a_ratio_is_that_of_scipys_bootstrap_over_users() -> None:
    rng = np.random.default_rng(2)
    clicked, user, _ = clustered(rng, users=300)
    clicks, n = np.bincount(user, clicked), np.bincount(user).astype(np.float64)
    expected = stats.bootstrap(
        (clicks, n),
        lambda c, m, axis: c.sum(axis) / m.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4_000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    rate = ratio_of_sums(clicked.astype(np.float64), np.ones(len(user)), user, 300)

    found = interval(resample({"rate": rate}, Draws(300, 4_000))["rate"])

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_rows_taken_for_independent_would_make_the_interval_too_narrow() -> None:
    clicked, user, logit = clustered(np.random.default_rng(3), users=200, rows_mean=30)
    noise = sigmoid(logit)
    by_user, by_row = Impressions.of(clicked, user), Impressions.of(clicked, np.arange(len(user)))

    widths = [
        found.high - found.low
        for impressions in (by_user, by_row)
        for found in [
            interval(
                resample(
                    {"": METRICS["log_loss"].build(impressions, noise)},
                    Draws(impressions.users, 400),
                )[""]
            )
        ]
    ]

    assert widths[0] > 1.5 * widths[1]


def test_replicates_do_not_depend_on_the_size_of_a_block_nor_on_what_else_is_resampled() -> None:
    clicked, user, logit = clustered(np.random.default_rng(4), users=30)
    impressions = Impressions.of(clicked, user)
    statistics = {name: METRICS[name].build(impressions, sigmoid(logit)) for name in ("auc", "ece")}
    draws = Draws(30, 130, seed=9)
    weights = np.concatenate(list(draws.blocks(7)))

    both = resample(statistics, draws)
    alone = resample({"ece": statistics["ece"]}, draws)

    np.testing.assert_array_equal(weights, np.concatenate(list(draws.blocks(1_000))))
    assert np.all(weights.sum(axis=1) == 30)
    np.testing.assert_allclose(
        both["auc"].replicates, naive_replicates(statistics["auc"], weights.astype(np.int64))
    )
    np.testing.assert_array_equal(both["ece"].replicates, alone["ece"].replicates)


def resampled(replicates: Doubles, value: float = 0.0, seed: int = 1) -> Resampled:
    return Resampled(value, replicates, Draws(10, len(replicates), seed))


def test_a_metric_that_is_mostly_undefined_has_no_interval() -> None:
    few = np.ones(100)
    few[:3] = np.nan
    many = np.ones(100)
    many[:30] = np.nan

    assert interval(resampled(few, 1.0)) == Interval(1.0, 1.0, 1.0, 0.95)
    assert np.isnan(interval(resampled(many, 1.0)).low)
    assert np.isnan(difference(resampled(many), resampled(few)).p_value)


def test_the_p_value_counts_replicates_beyond_zero_and_is_never_zero() -> None:
    zeros = np.zeros(199)
    above = np.ones(199)
    some_below = np.where(np.arange(199) < 9, -1.0, 1.0)

    clear = difference(resampled(above, 1.0), resampled(zeros))
    unclear = difference(resampled(some_below, 0.9), resampled(zeros))
    same = difference(resampled(zeros), resampled(zeros))

    assert clear == Difference(1.0, 1.0, 1.0, 0.95, 2 / 200)
    assert unclear.p_value == pytest.approx(2 * 10 / 200)
    assert same.p_value == 1.0


def test_models_that_were_resampled_apart_cannot_be_paired() -> None:
    with pytest.raises(InvalidInput, match=r"a pair resampled by .* Resample both in one call"):
        difference(resampled(np.ones(100)), resampled(np.ones(100), seed=2))


def test_calibration_errors_are_not_subtracted() -> None:
    error = replace(resampled(np.ones(100)), noise=np.ones(100))

    with pytest.raises(InvalidInput, match=r"a difference of calibration errors.*log loss"):
        difference(error, error)


def test_a_calibrated_model_is_not_told_that_it_errs() -> None:
    clicked, user, logit = clustered(np.random.default_rng(7), users=300)
    impressions = Impressions.of(clicked, user)
    statistics = {
        (name, strength): METRICS[name].build(impressions, sigmoid(strength * logit))
        for name in ("ece", "mce")
        for strength in (1.0, 3.0)
    }

    found = resample(statistics, Draws(300, 400))

    for name in ("ece", "mce"):
        calibrated, not_so = interval(found[name, 1.0]), interval(found[name, 3.0])
        assert calibrated.low == 0.0
        assert np.quantile(found[name, 1.0].replicates, 0.025) > 0.005
        assert not_so.low > 0.03
        assert calibrated.low <= calibrated.value <= calibrated.high


def test_too_few_replicates_for_a_tail_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"10 replicates of 5 users \(at least 100"):
        Draws(5, 10)


def test_pairing_sees_a_difference_that_two_intervals_hide() -> None:
    rng = np.random.default_rng(5)
    clicked, user, logit = clustered(rng, users=300)
    impressions = Impressions.of(clicked, user)
    worse = logit + rng.normal(0, 0.5, len(logit))
    found = resample(
        {
            name: METRICS["auc"].build(impressions, sigmoid(z))
            for name, z in (("good", logit), ("worse", worse))
        },
        Draws(300, 500),
    )
    good, bad = interval(found["good"]), interval(found["worse"])

    gap = difference(found["good"], found["worse"])

    assert bad.high > good.low
    assert gap.low > 0
    assert gap.p_value < 0.05


def test_a_bootstrap_of_100_000_rows_takes_seconds() -> None:
    rng = np.random.default_rng(6)
    user = rng.integers(0, 5_000, 100_000)
    pctr = rng.beta(2, 18, len(user))
    impressions = Impressions.of(rng.random(len(user)) < pctr, user)
    statistics = {name: METRICS[name].build(impressions, pctr) for name in ("auc", "log_loss")}

    begun = time.process_time()
    resample(statistics, Draws(impressions.users, 200))

    assert time.process_time() - begun < 20


def coverage(metric: str, miscalibration: float, *, simulations: int, users: int) -> float:
    """Share of intervals that hold the metric of a population of 100 000 users."""

    def predict(logit: Doubles) -> Doubles:
        return sigmoid(logit * (1 + miscalibration))

    clicked, user, logit = clustered(np.random.default_rng(0), users=100_000)
    crowd = Impressions.of(clicked, user)
    truth = METRICS[metric].build(crowd, predict(logit))(np.ones((1, crowd.users)))[0]
    held = 0
    for seed in range(1, simulations + 1):
        clicked, user, logit = clustered(np.random.default_rng(seed), users=users)
        impressions = Impressions.of(clicked, user)
        statistic = METRICS[metric].build(impressions, predict(logit))
        found = resample({"": statistic}, Draws(impressions.users, 300, seed))[""]
        ends = interval(found)
        held += ends.low <= truth <= ends.high
    return held / simulations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "miscalibration"),
    [
        ("auc", 0.0),
        ("gauc", 0.0),
        ("log_loss", 0.0),
        ("normalised_entropy", 0.0),
        ("calibration", 0.0),
        ("ece", 1.0),
        ("ece", 0.3),
        ("ece", 0.0),
        ("mce", 0.3),
        ("mce", 0.0),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(metric: str, miscalibration: float) -> None:
    held = coverage(metric, miscalibration, simulations=400, users=200)

    # Three binomial standard errors of 400, and the percentile interval's own shortfall.
    assert held > 0.90


@pytest.mark.slow
def test_a_pair_of_models_alike_is_called_different_as_often_as_alpha() -> None:
    called = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        clicked, user, logit = clustered(rng, users=200)
        impressions = Impressions.of(clicked, user)
        found = resample(
            {
                name: METRICS["auc"].build(
                    impressions, sigmoid(logit + rng.normal(0, 1, len(logit)))
                )
                for name in ("a", "b")
            },
            Draws(impressions.users, 300, seed),
        )
        called += difference(found["a"], found["b"]).p_value <= 0.05

    assert called / 400 == pytest.approx(0.05, abs=0.035)
