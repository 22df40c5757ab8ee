"""Weights of rows: means that they make, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.train.weights import (
    WEIGHT_RATIO_MAX,
    effective_rows,
    group_weights,
    inverse_propensity,
    popularity_weights,
)
from rankstream.errors import InvalidInput


def test_inverse_propensities_give_the_mean_of_what_was_not_selected_back() -> None:
    rng = np.random.default_rng(1)
    value = rng.normal(size=200_000)
    propensity = 1 / (1 + np.exp(-value)) * 0.8 + 0.1
    shown = rng.random(len(value)) < propensity

    weight = inverse_propensity(propensity[shown])

    assert abs(value[shown].mean()) > 0.2
    assert abs(np.average(value[shown], weights=weight)) < 0.02


@pytest.mark.parametrize("propensity", [0.0, -0.5, 1.5, float("nan")])
def test_a_propensity_that_is_no_probability_is_refused(propensity: float) -> None:
    with pytest.raises(InvalidInput, match="the propensity of row 1"):
        inverse_propensity(np.array([0.5, propensity]))


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=50))
def test_weights_have_mean_one_and_a_largest_ratio(propensity: list[float]) -> None:
    weight = inverse_propensity(np.array(propensity))

    assert weight.mean() == pytest.approx(1.0)
    assert weight.max() <= weight.min() * WEIGHT_RATIO_MAX * (1 + 1e-9)
    assert 1.0 - 1e-9 <= effective_rows(weight) <= len(weight) * (1 + 1e-9)


def test_effective_rows_are_those_of_the_variance_of_a_weighted_mean() -> None:
    rng = np.random.default_rng(2)
    weight = rng.uniform(0.1, 3.0, 400)

    means = rng.normal(size=(20_000, 400)) @ weight / weight.sum()

    assert 1 / means.var() == pytest.approx(effective_rows(weight), rel=0.05)


def test_popularity_power_runs_from_rows_to_items() -> None:
    item = np.repeat([0, 1, 2], [12, 3, 1])

    none, some, full = (popularity_weights(item, power=power) for power in (0.0, 0.5, 1.0))

    assert none.tolist() == [1.0] * 16
    assert some[0] / some[-1] == pytest.approx(12**-0.5)
    assert np.bincount(item, full) == pytest.approx(np.full(3, 16 / 3))


@pytest.mark.parametrize("power", [-0.1, 1.1, float("nan")])
def test_a_power_that_is_none_is_refused(power: float) -> None:
    with pytest.raises(InvalidInput, match="popularity power"):
        popularity_weights(np.zeros(2, np.int64), power=power)


def test_groups_weigh_the_same_in_all_unless_one_is_tiny() -> None:
    group = np.repeat(["many", "few", "tiny"], [1000, 100, 1])

    weight = group_weights(group)

    mass = {name: weight[group == name].sum() for name in ("many", "few", "tiny")}
    assert mass["many"] == pytest.approx(mass["few"])
    assert weight[-1] / weight[0] == pytest.approx(WEIGHT_RATIO_MAX)
