import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankstream.experiments.inference import Arm, fixed_horizon
from rankstream.experiments.metrics import CATALOGUE, Moments
from rankstream.experiments.sequential import anytime, multiplier, p_value

CTR = CATALOGUE["ctr"]
USERS = 940
LOOKS = 100
Int64Array = NDArray[np.int64]


@given(
    n=st.integers(10, 10**7),
    sigma=st.floats(0.01, 100),
    rho=st.floats(1e-3, 1.0),
    alpha=st.sampled_from([0.05, 0.01]),
)
def test_one_observation_per_unit_gives_the_published_half_width(
    n: int, sigma: float, rho: float, alpha: float
) -> None:
    time = n * rho**2 + 1
    published = sigma * math.sqrt(2 * time / (n**2 * rho**2) * math.log(math.sqrt(time) / alpha))

    se, tau = sigma / math.sqrt(n), rho * sigma

    assert se * multiplier(tau**2 / se**2, alpha) == pytest.approx(published, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_interval_is_tightest_around_the_planned_information(alpha: float) -> None:
    planned = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))

    best = min(multiplier(planned * 1.01**k, alpha) for k in range(-500, 500))

    assert multiplier(planned, alpha) == pytest.approx(best, rel=2e-3)


def test_the_price_of_a_wrong_plan_is_as_documented() -> None:
    planned = -2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))
    width = multiplier(planned, 0.05)

    price = [multiplier(planned / k**2, 0.05) / width for k in (1 / 3, 3, 10)]

    assert price == pytest.approx([1.07, 1.24, 3.0], abs=0.01)


@given(eta=st.floats(1e-4, 1e4), alpha=st.sampled_from([0.05, 0.01]))
def test_the_p_value_falls_below_alpha_where_the_interval_leaves_zero(
    eta: float, alpha: float
) -> None:
    edge = multiplier(eta, alpha)

    assert p_value(edge, eta) == pytest.approx(alpha)
    assert p_value(edge * 1.01, eta) < alpha < p_value(edge * 0.99, eta)


def test_the_anytime_interval_is_wider_than_the_fixed_one_around_the_same_lift() -> None:
    control, treatment = _arms(_stream("demo", np.random.default_rng(3), lift=0.2), LOOKS - 1)

    peek = anytime(CTR, control, treatment, alpha=0.05, planned_lift=0.1)
    once = fixed_horizon(CTR, control, treatment, alpha=0.05)

    assert peek.low is not None
    assert once.low is not None
    assert (peek.lift, peek.se) == (once.lift, once.se)
    assert peek.low < once.low
    assert peek.method == "anytime_delta"


@dataclass(frozen=True)
class Stream:
    """Totals so far, shape (users, looks), and each user's arm."""

    treated: NDArray[np.bool_]
    impressions: Int64Array
    clicks: Int64Array


def _stream(design: str, rng: np.random.Generator, *, lift: float) -> Stream:
    """Draw users who ask ten items at a time and click by their own CTR, 10 % on average.

    demo: all users from the start; late_heavy: users arrive over time, and the later the heavier;
    drift: the log of each user's CTR does a random walk; rare: CTR 1 %.
    """
    rate = rng.lognormal(-1.2, 1.0, USERS)
    ctr = rng.beta(2, 200 if design == "rare" else 18, USERS)
    active = np.ones((USERS, LOOKS), dtype=np.bool_)
    if design == "late_heavy":
        arrival = np.sort(rng.integers(0, LOOKS, USERS))
        rate = np.minimum(np.sort(rate) * (1 + arrival / 20), 30)
        active = np.arange(LOOKS) >= arrival[:, None]
    chance = np.repeat(ctr[:, None], LOOKS, axis=1)
    if design == "drift":
        walk = np.cumsum(rng.normal(0, 0.05, (USERS, LOOKS)), axis=1)
        chance = chance * np.exp(walk)
    treated = rng.random(USERS) < 0.5
    chance = np.minimum(chance * np.where(treated, 1 + lift, 1)[:, None], 0.95)
    impressions = 10 * rng.poisson(rate[:, None] * active)
    clicks = rng.binomial(impressions, chance)
    return Stream(treated, np.cumsum(impressions, axis=1), np.cumsum(clicks, axis=1))


def _arms(stream: Stream, look: int) -> tuple[Arm, Arm]:
    x, y = stream.impressions[:, look], stream.clicks[:, look]
    exposed = x > 0
    control, treatment = exposed & ~stream.treated, exposed & stream.treated
    return (
        Arm("control", Moments.of(y[control], x[control])),
        Arm("treatment", Moments.of(y[treatment], x[treatment])),
    )


@dataclass
class Tally:
    """Shares of replicates: anytime interval ever off the truth, fixed one ever off, a decision."""

    missed: float = 0.0
    missed_peeking: float = 0.0
    decided: float = 0.0
    width: float = 0.0


def _simulate(
    design: str, *, replicates: int, lift: float, alpha: float, planned_lift: float, seed: int
) -> Tally:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    tally = Tally()
    for _ in range(replicates):
        stream = _stream(design, rng, lift=lift)
        missed = peeked = decided = False
        width = 0.0
        for look in range(LOOKS):
            control, treatment = _arms(stream, look)
            now = anytime(CTR, control, treatment, alpha=alpha, planned_lift=planned_lift)
            once = fixed_horizon(CTR, control, treatment, alpha=alpha)
            if now.low is not None and now.high is not None:
                missed |= not now.low <= lift <= now.high
                decided |= now.verdict in ("better", "worse")
                assert once.low is not None
                assert once.high is not None
                width = (now.high - now.low) / (once.high - once.low)
            if once.low is not None and once.high is not None:
                peeked |= not once.low <= lift <= once.high
        tally.missed += missed / replicates
        tally.missed_peeking += peeked / replicates
        tally.decided += decided / replicates
        tally.width += width / replicates
    print(f"{design} lift={lift} alpha={alpha} planned={planned_lift}: {tally}")
    return tally


def _at_most(alpha: float, replicates: int) -> float:
    """The bound that a true rate of alpha exceeds about once in a thousand runs."""
    return alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)


def test_looking_a_hundred_times_keeps_the_promise_where_a_fixed_interval_breaks_it() -> None:
    tally = _simulate(
        "demo", replicates=150, lift=0.0, alpha=0.05, planned_lift=0.1, seed=20_240_601
    )

    assert tally.missed <= _at_most(0.05, 150)
    assert tally.missed_peeking > 0.12
    assert 1.4 < tally.width < 1.9


@pytest.mark.slow
@pytest.mark.parametrize("design", ["demo", "late_heavy", "drift", "rare"])
@pytest.mark.parametrize("lift", [0.0, 0.2])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_interval_covers_the_true_lift_at_all_looks_together(
    design: str, lift: float, alpha: float
) -> None:
    replicates = 1_000

    tally = _simulate(
        design, replicates=replicates, lift=lift, alpha=alpha, planned_lift=0.3, seed=11
    )

    assert tally.missed <= _at_most(alpha, replicates)
    assert tally.missed_peeking > 2 * alpha
