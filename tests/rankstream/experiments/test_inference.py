import math

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats

from rankstream.experiments.inference import (
    MIN_UNITS,
    Arm,
    Mean,
    fieller,
    fixed_horizon,
    ratio_mean,
)
from rankstream.experiments.metrics import CATALOGUE, Moments

CTR = CATALOGUE["ctr"]
CLICKS = CATALOGUE["clicks_per_user"]
SEED = 20_240_501


def users(seed: int, n: int, ctr: float = 0.1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Impressions and clicks of n users whose CTR and activity differ."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    impressions = 10 * rng.integers(1, 8, n)
    return impressions, rng.binomial(impressions, rng.beta(10 * ctr, 10 * (1 - ctr), n))


def test_the_se_of_a_ratio_is_that_of_cluster_robust_ols() -> None:
    x, y = users(SEED, 300)
    clicks = np.concatenate([np.repeat([1, 0], [c, i - c]) for i, c in zip(x, y, strict=True)])
    groups = np.repeat(np.arange(len(x)), x)

    fit = sm.OLS(clicks, np.ones((len(clicks), 1))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )

    mean = ratio_mean(Moments.of(y, x))
    assert mean is not None
    assert mean.value == pytest.approx(fit.params[0], rel=1e-12)
    assert math.sqrt(mean.variance) == pytest.approx(fit.bse[0], rel=1e-12)


def test_the_se_of_a_ratio_is_the_textbook_delta_method() -> None:
    x, y = users(SEED, 200)
    ratio = y.sum() / x.sum()
    (s_xx, s_xy), (_, s_yy) = np.cov(x, y)

    mean = ratio_mean(Moments.of(y, x))

    expected = (s_yy - 2 * ratio * s_xy + ratio**2 * s_xx) / (200 * x.mean() ** 2)
    assert mean is not None
    assert mean.variance == pytest.approx(expected, rel=1e-10)


def test_the_difference_of_means_is_welch() -> None:
    _, control = users(SEED, 400)
    _, treatment = users(SEED + 1, 3_000, ctr=0.12)

    found = fixed_horizon(
        CLICKS, Arm("a", Moments.of(control)), Arm("b", Moments.of(treatment)), alpha=0.05
    )

    welch = stats.ttest_ind(treatment, control, equal_var=False)
    assert found.difference is not None
    assert found.difference_high is not None
    se = (found.difference_high - found.difference) / stats.norm.ppf(0.975)
    assert found.difference / se == pytest.approx(welch.statistic, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_fixed_interval_of_the_lift_is_the_delta_method(alpha: float) -> None:
    (xc, yc), (xt, yt) = users(SEED, 2_000), users(SEED + 1, 1_000, ctr=0.13)

    found = fixed_horizon(
        CTR, Arm("a", Moments.of(yc, xc)), Arm("b", Moments.of(yt, xt)), alpha=alpha
    )

    control, treatment = ratio_mean(Moments.of(yc, xc)), ratio_mean(Moments.of(yt, xt))
    assert control is not None
    assert treatment is not None
    relative = treatment.variance / treatment.value**2 + control.variance / control.value**2
    se = treatment.value / control.value * math.sqrt(relative)
    z = stats.norm.ppf(1 - alpha / 2)
    lift = treatment.value / control.value - 1
    assert found.method == "fixed_delta"
    assert (found.low, found.high) == pytest.approx((lift - z * se, lift + z * se), rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(lift / se), rel=1e-9)
    assert found.verdict == "better"


def test_fieller_is_the_set_of_lifts_that_the_test_does_not_reject() -> None:
    control, treatment = Mean(1.0, 0.04, 100), Mean(1.5, 0.09, 100)

    interval = fieller(control, treatment, 1.96)

    assert interval is not None
    for lift in interval:
        gap = treatment.value - (1 + lift) * control.value
        se = math.sqrt(treatment.variance + (1 + lift) ** 2 * control.variance)
        assert abs(gap) == pytest.approx(1.96 * se)


def test_fieller_is_unbounded_when_the_control_mean_may_be_zero() -> None:
    assert fieller(Mean(1.0, 0.3, 100), Mean(1.0, 0.1, 100), 1.96) is None


def test_a_noisy_control_mean_goes_through_fieller() -> None:
    y = np.zeros(200, dtype=np.int64)
    y[:30] = 1
    arm = Moments.of(y)

    found = fixed_horizon(CLICKS, Arm("a", arm), Arm("b", arm), alpha=0.05)

    assert found.method == "fixed_fieller"
    assert found.low is not None
    assert found.high is not None
    assert -found.low < found.high
    assert found.verdict == "no_difference_yet"


def test_a_treatment_that_lost_every_click_is_worse_but_not_certain() -> None:
    _, y = users(SEED, 1_000)
    silent = np.zeros(1_000, dtype=np.int64)

    found = fixed_horizon(CLICKS, Arm("a", Moments.of(y)), Arm("b", Moments.of(silent)), alpha=0.05)

    assert found.lift == -1
    assert found.se is not None
    assert found.se > 0.01
    assert found.verdict == "worse"


@pytest.mark.parametrize(
    "control",
    [
        Moments(),
        Moments.of(np.ones(MIN_UNITS - 1, dtype=np.int64)),
        Moments.of(np.zeros(500, dtype=np.int64)),
    ],
    ids=["nobody", "too few units", "control without events"],
)
def test_arms_that_carry_no_estimate_say_so(control: Moments) -> None:
    _, y = users(SEED, 500)

    found = fixed_horizon(CLICKS, Arm("a", control), Arm("b", Moments.of(y)), alpha=0.05)

    assert found.verdict == "no_data"
    assert (found.lift, found.low, found.se, found.p_value) == (None, None, None, None)


def test_identical_users_carry_no_variance_and_no_estimate() -> None:
    same = Moments.of(np.full(100, 3, dtype=np.int64))

    found = fixed_horizon(CLICKS, Arm("a", same), Arm("b", same), alpha=0.05)

    assert found.verdict == "no_data"
