import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

from rankstream.experiments.srm import check_srm


def test_the_published_mismatch_is_found() -> None:
    check = check_srm([821_588, 815_482], [1, 1])

    assert check.chi2_p_value == pytest.approx(1.82e-6, rel=5e-3)
    assert check.p_value < 0.001
    assert check.verdict == "fail"


@given(
    counts=st.lists(st.integers(0, 100_000), min_size=3, max_size=3).filter(any),
    weights=st.lists(st.integers(1, 100), min_size=3, max_size=3),
)
def test_the_check_equals_scipy_and_the_formula(counts: list[int], weights: list[int]) -> None:
    theta = np.array(weights) / sum(weights)
    prior, total = 10_000 * theta, sum(counts)

    check = check_srm(counts, weights)

    def log_b(a: np.ndarray) -> float:
        return float(gammaln(a).sum() - gammaln(a.sum()))

    expected = log_b(prior + counts) - log_b(prior) - float(np.dot(counts, np.log(theta)))
    assert check.log_e == pytest.approx(expected, rel=1e-6, abs=1e-5)
    chi2 = stats.chisquare(counts, theta * total)
    assert check.chi2_p_value == pytest.approx(chi2.pvalue, rel=1e-9, abs=1e-300)
    assert check.p_value == pytest.approx(min(1.0, math.exp(-check.log_e)))


def test_the_e_value_is_a_martingale() -> None:
    # One more unit, averaged over where it may land, leaves E where it was.
    before = check_srm([700, 320], [2, 1]).log_e

    after = [check_srm(counts, [2, 1]).log_e for counts in ([701, 320], [700, 321])]

    mean = 2 / 3 * math.exp(after[0]) + 1 / 3 * math.exp(after[1])
    assert mean == pytest.approx(math.exp(before), rel=1e-9)


def test_without_units_there_is_no_data() -> None:
    check = check_srm([0, 0], [5_000, 5_000])

    assert (check.verdict, check.p_value, check.chi2_p_value) == ("no_data", 1.0, None)


def test_looking_often_raises_no_more_false_alarms_than_promised() -> None:
    seed, replicates, alpha = 7, 400, 0.05
    print(f"seed {seed}")
    steps = np.random.default_rng(seed).binomial(500, 0.5, (replicates, 100))
    counts = np.cumsum(steps, axis=1)

    alarms = sum(
        any(
            check_srm([int(c), 500 * (look + 1) - int(c)], [1, 1], alpha=alpha).verdict == "fail"
            for look, c in enumerate(row)
        )
        for row in counts
    )

    assert alarms <= replicates * alpha + 3 * math.sqrt(replicates * alpha * (1 - alpha))
