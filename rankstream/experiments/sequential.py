"""Lift with an interval that is valid at every look: the asymptotic confidence sequence.

For n units that each arrive once, Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, give

    mean +- sigma sqrt(2 (n rho^2 + 1) / (n^2 rho^2) log(sqrt(n rho^2 + 1) / alpha)).

Two unequal arms and users who come back do not have "the" n. What that formula needs is the time of
the Brownian motion behind it, and that is the information 1 / SE^2. With eta = tau^2 / SE^2 it
reads

    lift +- SE sqrt((1 + 1 / eta) log((eta + 1) / alpha^2)),

the same numbers when SE = sigma / sqrt(n) and tau = rho sigma, for any split between arms. It is
the set of lifts that a normal mixture N(lift, tau^2) never rejects: E(lift) = exp(z^2 eta / (2 (1 +
eta))) / sqrt(1 + eta) < 1 / alpha.

Choice of tau: the experiment's `planned_lift`, fixed in its definition before data. The width in
standard errors is least near eta = -2 log(alpha) + log(1 - 2 log(alpha)), the paper's rho at its
planned n. With tau = planned_lift that is SE = planned_lift / 2.8 at alpha .05 and / 3.4 at .01:
to within 1 % the SE at which a fixed test has 80 % power for `planned_lift`. At alpha .05 an SE
three times smaller costs 7 % of width, three times larger 24 %, ten times larger 200 %: when in
doubt, plan a larger lift.

What is valid when users come back:

- The look is at per-user totals so far, so the SE holds the differences between users, which more
  requests by the same users never average away. Using the number of users as n would be wrong here:
  it stands still while estimates keep moving. Information does not.
- Validity needs Cov(estimate_s, estimate_t) >= Var(estimate_t) for looks s < t. Equality is
  Brownian motion in information time; more correlation only makes crossings rarer (Slepian). It
  holds for users who arrive over time, each at a steady pace, light and heavy mixed. Late arrivals
  much heavier than early ones, or users whose taste drifts, break it; in simulation that cost part
  of the slack and not the promise (tests/rankstream/experiments/test_sequential.py).
- It is asymptotic: below MIN_UNITS per arm nothing is said, and few events go through Fieller's
  set.
- The estimand is the lift of the ratio over users *as active as they were up to the look*. If the
  effect changes over time (novelty), each interval covers the average so far, not the future.
- Each interval stands for itself: do not intersect intervals across looks when the effect may
  change.
- alpha is per metric and treatment; several treatments or metrics need their own correction.
"""

import math

from rankstream.contracts.experiment import Estimate
from rankstream.experiments.inference import Arm, Rule, estimate
from rankstream.experiments.metrics import Metric


def anytime(
    metric: Metric, control: Arm, treatment: Arm, *, alpha: float, planned_lift: float
) -> Estimate:
    """Return the lift with its anytime interval and p-value.

    Args:
        alpha: P(the interval ever misses the true lift, over all looks) is at most this,
            asymptotically.
        planned_lift: relative lift at which the interval is tightest, chosen before data; positive.
    """
    square = planned_lift**2
    rule = Rule(
        "anytime",
        lambda se: multiplier(_eta(square, se), alpha),
        lambda z, se: p_value(z, _eta(square, se)),
    )
    return estimate(metric, control, treatment, alpha=alpha, rule=rule)


def multiplier(eta: float, alpha: float) -> float:
    """Return the half-width in standard errors at information eta = tau^2 / SE^2."""
    return math.sqrt((1 + 1 / eta) * (math.log1p(eta) - 2 * math.log(alpha)))


def p_value(z: float, eta: float) -> float:
    """Return min(1, 1 / E): P(ever at most alpha) <= alpha under no difference; below alpha iff 0
    is outside.
    """
    return math.exp(min(0.0, 0.5 * math.log1p(eta) - 0.5 * z * z * eta / (1 + eta)))


def _eta(square: float, se: float) -> float:
    # A treatment without variance and without events has se > 0; see `estimate`.
    return square / se**2
