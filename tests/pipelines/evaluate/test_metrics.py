"""Figures of a ranker on held-out rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from pipelines.evaluate.metrics import (
    calibration_curve,
    equal_count_bins,
    normalised_entropy,
    ranker_metrics,
    user_auc,
)
from tests.pipelines.evaluate.candidates import clustered, sigmoid


def test_a_calibrated_model_has_no_calibration_error_and_a_shifted_one_has_its_shift() -> None:
    rng = np.random.default_rng(1)
    pctr = rng.uniform(0.1, 0.6, 200_000)
    clicked = (rng.random(len(pctr)) < pctr).astype(np.uint8)

    assert calibration_curve(clicked, pctr).ece < 0.005
    assert calibration_curve(clicked, pctr + 0.2).ece == pytest.approx(0.2, abs=0.005)


def test_a_perfect_order_has_auc_one() -> None:
    metrics = ranker_metrics(np.array([0, 0, 1, 1], np.uint8), np.array([0.1, 0.2, 0.3, 0.4]))

    assert metrics["auc"] == 1.0
    assert metrics["calibration"] == pytest.approx(0.5)


def test_predicting_the_base_rate_has_normalised_entropy_one() -> None:
    clicked = np.array([0, 0, 0, 1])

    at_base_rate = normalised_entropy(clicked, np.full(4, 0.25))
    half_sure = normalised_entropy(clicked, np.array([0.1, 0.1, 0.1, 0.7]))

    assert at_base_rate == pytest.approx(1.0)
    assert half_sure == pytest.approx(
        log_loss(clicked, [0.1, 0.1, 0.1, 0.7]) / log_loss(clicked, np.full(4, 0.25))
    )


def test_precision_recall_and_accuracy_are_taken_at_the_stated_threshold() -> None:
    clicked, pctr = [0, 1, 1, 0], [0.1, 0.2, 0.6, 0.7]

    half = ranker_metrics(clicked, pctr)
    low = ranker_metrics(clicked, pctr, threshold=0.15)
    high = ranker_metrics(clicked, pctr, threshold=0.9)

    assert (half["threshold"], half["precision"], half["recall"]) == (0.5, 0.5, 0.5)
    assert (low["accuracy"], low["precision"], low["recall"]) == (0.75, 2 / 3, 1.0)
    assert "precision" not in high
    assert all(math.isfinite(value) for value in high.values())


def naive_user_auc(clicked: np.ndarray, pctr: np.ndarray, user: np.ndarray) -> dict[int, float]:
    """AUC of every user with both classes, by scikit-learn."""
    return {
        one: float(roc_auc_score(clicked[user == one], pctr[user == one]))
        for one in np.unique(user).tolist()
        if len(set(clicked[user == one].tolist())) == 2
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 10, 10_000]))
def test_auc_within_users_is_that_of_each_user_alone_with_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    clicked, user, logit = clustered(rng, users=15, rows_mean=5)
    pctr = np.round(sigmoid(logit) * levels) / levels
    expected = naive_user_auc(clicked, pctr, user)

    found = user_auc(clicked, pctr, user)

    assert np.flatnonzero(~np.isnan(found.auc)).tolist() == list(expected)
    np.testing.assert_allclose(found.auc[list(expected)], list(expected.values()), atol=1e-12)
    assert found.users_left_out == pytest.approx(1 - len(expected) / 15)


def test_gauc_weighs_users_by_impressions_and_says_whom_it_left_out() -> None:
    clicked = np.array([0, 1, 0, 1, 0, 1, 1])
    pctr = np.array([0.1, 0.2, 0.9, 0.1, 0.2, 0.3, 0.4])
    user = np.array([0, 0, 1, 1, 1, 1, 2])

    found = user_auc(clicked, pctr, user)
    metrics = ranker_metrics(clicked, pctr, user)

    assert found.mean == pytest.approx((2 * 1.0 + 4 * 0.25) / 6)
    assert metrics["gauc"] == found.mean
    assert metrics["gauc_users_left_out"] == pytest.approx(1 / 3)


def test_without_ties_bins_hold_equal_counts_and_the_curve_is_their_means() -> None:
    rng = np.random.default_rng(2)
    pctr, clicked = rng.random(103), rng.integers(0, 2, 103)
    bins = np.array_split(np.argsort(pctr), 10)

    curve = calibration_curve(clicked, pctr)

    assert curve.n.tolist() == [len(part) for part in bins]
    np.testing.assert_allclose(curve.predicted, [pctr[part].mean() for part in bins])
    np.testing.assert_allclose(curve.observed, [clicked[part].mean() for part in bins])
    gaps = np.abs(curve.predicted - curve.observed)
    assert curve.mce == gaps.max()
    assert curve.ece == pytest.approx((gaps * curve.n).sum() / 103)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=60))
def test_bins_do_not_depend_on_the_order_of_rows_with_equal_predictions(
    values: list[float],
) -> None:
    pctr = np.array(values)
    order = np.random.default_rng(len(values)).permutation(len(values))

    bins = equal_count_bins(pctr)

    np.testing.assert_array_equal(equal_count_bins(pctr[order]), bins[order])
    assert np.unique(bins).tolist() == list(range(bins.max() + 1))
    assert all(len(np.unique(bins[pctr == value])) == 1 for value in np.unique(pctr))
