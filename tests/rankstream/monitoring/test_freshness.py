"""Quantiles of delays against numpy."""

from __future__ import annotations

import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.monitoring.freshness import DELAY_MS_MAX, RELATIVE_ERROR, Delays

DELAYS_MS = st.lists(st.floats(-1e3, 1e10), max_size=50)


@given(values=st.lists(st.floats(2, DELAY_MS_MAX), min_size=1, max_size=80), q=st.floats(0, 1))
def test_a_quantile_is_within_the_stated_error_of_the_order_statistic(
    values: list[float], q: float
) -> None:
    estimate = Delays.of(values).quantile_ms(q)

    # The rank is ceil(q n) in exact arithmetic; take the same float here.
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    assert estimate == pytest.approx(exact, rel=RELATIVE_ERROR * 1.001)


@given(parts=st.lists(DELAYS_MS, min_size=3, max_size=3))
def test_merging_in_any_grouping_equals_counting_at_once(parts: list[list[float]]) -> None:
    one, two, three = map(Delays.of, parts)

    left = one.merge(two).merge(three)
    right = one.merge(two.merge(three))

    whole = Delays.of([*chain(*parts)])
    assert left.counts.tolist() == right.counts.tolist() == whole.counts.tolist()


def test_clocks_that_disagree_count_as_no_delay_and_a_month_as_a_week() -> None:
    delays = Delays.of([-500.0, 30 * 86_400_000.0])

    assert delays.quantile_ms(0.5) == 1.0
    assert delays.quantile_ms(1.0) == pytest.approx(DELAY_MS_MAX, rel=0.05)


def test_without_delays_there_is_no_quantile_and_every_click_counts_as_arrived() -> None:
    assert math.isnan(Delays.empty().quantile_ms(0.99))
    assert Delays.empty().share_within([0, 1e6]).tolist() == [1.0, 1.0]


def test_the_share_within_an_age_equals_counting() -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(60_000, size=20_000)
    ages = np.array([1_000.0, 30_000.0, 60_000.0, 300_000.0])

    shares = Delays.of(values).share_within(ages)

    counted = [(values <= age).mean() for age in ages]
    assert shares == pytest.approx(counted, abs=0.01)
