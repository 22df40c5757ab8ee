"""Sample ratio mismatch: do the unit counts fit the weights, at whatever time one looks?

Each unit counts once, at its first exposure, so the counts are multinomial with the planned weights
if nothing is lost. The e-process tests that against a Dirichlet prior centred on the weights with
concentration K:

    log E = log B(K theta + n) - log B(K theta) - sum n_i log theta_i,   B the multivariate beta
    function.

Under the null E is a martingale that starts at 1, so by Ville P(E ever >= 1 / alpha) <= alpha:
looking after every unit is free. Source: Lindon and Malek, "Anytime-Valid Inference for Multinomial
Count Data", NeurIPS 2022.
"""

import math
from collections.abc import Sequence

from scipy.special import chdtrc

from rankstream.contracts.experiment import SrmCheck

ALPHA = 0.001
CONCENTRATION = 10_000.0
"""Prior weight in units: high, so that small imbalances at many units are what the test looks for.
"""


def check_srm(
    observed: Sequence[int], weights: Sequence[float], *, alpha: float = ALPHA
) -> SrmCheck:
    """Return the check of unit counts against weights.

    Args:
        observed: shape (k,), units first exposed in each variant.
        weights: shape (k,), planned shares, positive, any common scale (10 000 for basis points).
    Returns: `p_value` is min(1, 1 / E), valid at any look; `chi2_p_value` only at one planned look.
    """
    assert len(observed) == len(weights) >= 2, "one weight per variant"
    assert min(weights) > 0, "a variant without weight gets no units"
    total = sum(observed)
    scale = math.fsum(weights)
    theta = [weight / scale for weight in weights]
    expected = tuple(share * total for share in theta)
    log_e = _log_e(observed, theta)
    p_value = math.exp(min(0.0, -log_e))
    failed = p_value <= alpha
    return SrmCheck(
        observed=tuple(observed),
        expected=expected,
        log_e=log_e,
        p_value=p_value,
        chi2_p_value=_chi2_p_value(observed, expected) if total > 0 else None,
        alpha=alpha,
        verdict="no_data" if total == 0 else "fail" if failed else "pass",
    )


def _log_e(observed: Sequence[int], theta: Sequence[float]) -> float:
    total = sum(observed)
    terms = [math.lgamma(CONCENTRATION), -math.lgamma(CONCENTRATION + total)]
    for count, share in zip(observed, theta, strict=True):
        prior = CONCENTRATION * share
        terms += [math.lgamma(prior + count), -math.lgamma(prior), -count * math.log(share)]
    return math.fsum(terms)


def _chi2_p_value(observed: Sequence[int], expected: Sequence[float]) -> float:
    pairs = zip(observed, expected, strict=True)
    statistic = math.fsum((count - mean) ** 2 / mean for count, mean in pairs)
    return float(chdtrc(len(observed) - 1, statistic))
