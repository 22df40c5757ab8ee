"""Clicks follow examination times attraction, and their expectation is exact."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.errors import InvalidInput
from rankstream.simulation.attention import (
    EXAMINATION,
    Buying,
    click_probability,
    clicks,
    expected_ctr,
    purchases,
)
from rankstream.simulation.truth import Truth

SLATE = [f"i{k}" for k in range(12)]


def a_truth() -> Truth:
    bias = np.linspace(-2.0, 2.0, len(SLATE))
    return Truth(("u",), tuple(SLATE), 0.1, np.zeros(1), bias, np.ones((1, 1)), bias[:, None] / 4)


def test_clicks_average_to_the_closed_form() -> None:
    truth, rng = a_truth(), np.random.default_rng(11)
    rounds = 20_000

    share = np.mean([clicks(truth, "u", SLATE, rng) for _ in range(rounds)], axis=0)

    expected = click_probability(truth, "u", SLATE)
    error = np.sqrt(expected * (1 - expected) / rounds)
    assert (np.abs(share - expected) <= 4.5 * error).all()
    assert expected_ctr(truth, "u", SLATE) == pytest.approx(expected.mean())


def test_positions_past_the_tenth_are_never_clicked() -> None:
    probability = click_probability(a_truth(), "u", SLATE)

    assert (probability[: len(EXAMINATION)] > 0).all()
    assert (probability[len(EXAMINATION) :] == 0).all()


def test_the_same_items_earn_more_in_better_order() -> None:
    truth = a_truth()

    best_first = expected_ctr(truth, "u", SLATE[::-1])
    worst_first = expected_ctr(truth, "u", SLATE)

    assert best_first > worst_first


def test_an_empty_slate_has_no_ctr() -> None:
    with pytest.raises(InvalidInput, match="slate of 0 items"):
        expected_ctr(a_truth(), "u", [])


def test_purchases_follow_clicks_by_an_exponential_time() -> None:
    rng, buying = np.random.default_rng(2), Buying(p_purchase=0.25, delay_ms_mean=8_000.0)
    clicked = np.tile([True, False], 10_000)

    bought = purchases(clicked, rng, buying)

    assert all(clicked[purchase.position] for purchase in bought)
    assert len(bought) == pytest.approx(2_500, rel=0.07)
    delay_ms = np.array([purchase.delay_ms for purchase in bought])
    assert delay_ms.mean() == pytest.approx(8_000, rel=0.1)
    assert delay_ms.std() == pytest.approx(8_000, rel=0.1)
