"""Lift of a treatment over control from two arms' moments, and the fixed-horizon interval.

The user is the randomised unit, so the variance of a ratio is that of user totals (delta method),
never that of impressions. The relative lift is muT / muC - 1: interval by the delta method where
the control mean is at least ten standard errors from zero, else by Fieller, which inverts the test
of muT - (1 + L) muC = 0 and needs no linearisation.

Sources: Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018; Fieller
1954.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from rankstream.contracts.experiment import Estimate, Method, Verdict
from rankstream.experiments.metrics import Metric, Moments

MIN_UNITS = 50
"""Units per arm below which a normal approximation is not attempted (verdict `no_data`)."""

FIELLER_BELOW = 10.0
"""Control mean over its standard error below which the delta method gives way to Fieller."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant's moments on one metric."""

    name: str
    moments: Moments


@dataclass(frozen=True, slots=True)
class Mean:
    """A ratio sum(y) / sum(x), the variance of that estimate, and its number of units."""

    value: float
    variance: float
    n: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What parts a fixed from an anytime interval: multiplier of the SE, and p-value, given SE of
    the lift.
    """

    name: Literal["fixed", "anytime"]
    multiplier: Callable[[float], float]
    p_value: Callable[[float, float], float]


def ratio_mean(moments: Moments) -> Mean | None:
    """Return R = sum(y) / sum(x) with Var(R) = n / (n - 1) * sum((y - R x)^2) / sum(x)^2.

    Equal to (s_yy - 2 R s_xy + R^2 s_xx) / (n xbar^2), and to CR1 cluster-robust OLS of one arm.
    The residual sum is formed in integers, so it neither cancels nor depends on the order of units.
    Returns: None without two units or with sum(x) <= 0.
    """
    n, sx, sy = moments.n, moments.sx, moments.sy
    if n < 2 or sx <= 0:
        return None
    residual = moments.syy * sx * sx - 2 * moments.sxy * sx * sy + moments.sxx * sy * sy
    return Mean(value=sy / sx, variance=n * residual / ((n - 1) * sx**4), n=n)


def lift_se(control: Mean, treatment: Mean) -> float:
    """Return the delta-method SE of muT / muC - 1: Var = vT / muC^2 + vC muT^2 / muC^4. muC must be
    positive.
    """
    square = control.value**2
    return math.sqrt(
        treatment.variance / square + control.variance * treatment.value**2 / square**2
    )


def fieller(control: Mean, treatment: Mean, multiplier: float) -> tuple[float, float] | None:
    """Return all L with |muT - (1 + L) muC| <= multiplier * SE; None if unbounded."""
    square = multiplier**2
    a = control.value**2 - square * control.variance
    if a <= 0:
        return None
    b = treatment.value * control.value
    c = treatment.value**2 - square * treatment.variance
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a - 1, (b + root) / a - 1


def estimate(metric: Metric, control: Arm, treatment: Arm, *, alpha: float, rule: Rule) -> Estimate:
    """Return the lift with the interval of `rule`; verdict `no_data` where the arms cannot carry
    one.

    No data means: fewer than MIN_UNITS in an arm, a control mean that is not positive, or no
    variance at all. A treatment without a single event takes the variance that it would have under
    no difference: its own would be zero, and a broken arm would get a lift of exactly -1 with
    certainty.
    """
    means = _usable(ratio_mean(control.moments), ratio_mean(treatment.moments))
    if means is None:
        return _no_data(metric, control, treatment, alpha=alpha, rule=rule)
    base, other = means
    difference = other.value - base.value
    difference_se = math.sqrt(base.variance + other.variance)
    se = lift_se(base, other)
    lift = other.value / base.value - 1
    multiplier = rule.multiplier(se)
    if base.value >= FIELLER_BELOW * math.sqrt(base.variance):
        method = _METHODS[rule.name, "delta"]
        z = lift / se
        interval: tuple[float, float] | None = (lift - multiplier * se, lift + multiplier * se)
    else:
        method = _METHODS[rule.name, "fieller"]
        z = difference / difference_se
        interval = fieller(base, other, multiplier)
    low, high = interval if interval is not None else (None, None)
    return Estimate(
        metric=metric.name,
        control=control.name,
        treatment=treatment.name,
        lift=lift,
        low=low,
        high=high,
        se=se,
        p_value=rule.p_value(z, se),
        difference=difference * metric.scale,
        difference_low=(difference - multiplier * difference_se) * metric.scale,
        difference_high=(difference + multiplier * difference_se) * metric.scale,
        alpha=alpha,
        n_control=control.moments.n,
        n_treatment=treatment.moments.n,
        method=method,
        verdict=verdict_of(low, high),
    )


def fixed_horizon(metric: Metric, control: Arm, treatment: Arm, *, alpha: float) -> Estimate:
    """Return the lift with its normal interval: valid once, at a size chosen before looking."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    rule = Rule("fixed", lambda _se: z, lambda score, _se: math.erfc(abs(score) / math.sqrt(2)))
    return estimate(metric, control, treatment, alpha=alpha, rule=rule)


def verdict_of(low: float | None, high: float | None) -> Verdict:
    """Return better or worse if the interval lies on one side of zero; every metric here is better
    when higher.
    """
    if low is not None and low > 0:
        return "better"
    if high is not None and high < 0:
        return "worse"
    return "no_difference_yet"


_METHODS: dict[tuple[str, str], Method] = {
    ("fixed", "delta"): "fixed_delta",
    ("fixed", "fieller"): "fixed_fieller",
    ("anytime", "delta"): "anytime_delta",
    ("anytime", "fieller"): "anytime_fieller",
}


def _usable(control: Mean | None, treatment: Mean | None) -> tuple[Mean, Mean] | None:
    if control is None or treatment is None or min(control.n, treatment.n) < MIN_UNITS:
        return None
    if treatment.value == 0:
        treatment = Mean(0.0, control.variance * control.n / treatment.n, treatment.n)
    if control.value <= 0 or control.variance + treatment.variance <= 0:
        return None
    return control, treatment


def _no_data(metric: Metric, control: Arm, treatment: Arm, *, alpha: float, rule: Rule) -> Estimate:
    return Estimate(
        metric=metric.name,
        control=control.name,
        treatment=treatment.name,
        lift=None,
        low=None,
        high=None,
        se=None,
        p_value=None,
        difference=None,
        difference_low=None,
        difference_high=None,
        alpha=alpha,
        n_control=control.moments.n,
        n_treatment=treatment.moments.n,
        method=_METHODS[rule.name, "delta"],
        verdict="no_data",
    )
