"""Weighted metrics against scikit-learn's sample_weight and against rows repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from pipelines.evaluate.impressions import Doubles, Impressions
from pipelines.evaluate.lists import LIST_METRICS, rank_lists
from pipelines.evaluate.metrics import calibration_curve, ranker_metrics
from pipelines.evaluate.weighted import METRICS, mean_of, statistics
from tests.pipelines.evaluate.candidates import clustered, sigmoid

ONES = np.ones((1, 40))


def sample(seed: int, levels: int = 10_000) -> tuple[Impressions, np.ndarray]:
    """40 users, predictions in steps of 1 / levels."""
    clicked, user, logit = clustered(np.random.default_rng(seed), users=40, rows_mean=8)
    return Impressions.of(clicked, user, user), np.round(sigmoid(logit) * levels) / levels


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([5, 10_000]))
def test_metrics_under_weights_equal_those_of_scikit_learn(seed: int, levels: int) -> None:
    impressions, pctr = sample(seed, levels)
    weights = np.random.default_rng(seed).integers(0, 4, (3, 40)).astype(np.float64)
    clicked, predicted = impressions.clicked, pctr >= 0.5
    oracles: dict[str, Callable[[Doubles], float]] = {
        "auc": lambda w: roc_auc_score(clicked, pctr, sample_weight=w),
        "log_loss": lambda w: log_loss(clicked, pctr, sample_weight=w),
        "accuracy": lambda w: accuracy_score(clicked, predicted, sample_weight=w),
        "recall": lambda w: recall_score(clicked, predicted, sample_weight=w),
        "calibration": lambda w: np.average(pctr, weights=w) / np.average(clicked, weights=w),
    }
    if all((weights[:, impressions.user] * predicted).sum(axis=1)):
        oracles["precision"] = lambda w: precision_score(clicked, predicted, sample_weight=w)

    for name, oracle in oracles.items():
        found = METRICS[name].build(impressions, pctr)(weights)

        np.testing.assert_allclose(
            found, [oracle(row[impressions.user]) for row in weights], atol=1e-9, err_msg=name
        )


def test_weights_of_one_give_the_metrics_themselves() -> None:
    impressions, pctr = sample(3)
    plain = ranker_metrics(impressions.clicked, pctr, impressions.user)
    lists = rank_lists(impressions.query, pctr, impressions.clicked, 10)  # type: ignore[arg-type]
    of_lists = {
        f"{name}_at_{k}": float(metric(lists, k)[lists.relevant > 0].mean())
        for k in (5, 10)
        for name, metric in LIST_METRICS.items()
    }
    expected = {name: value for name, value in {**plain, **of_lists}.items() if name in METRICS}

    found = {name: METRICS[name].build(impressions, pctr)(ONES)[0] for name in METRICS}

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_lists_ranked_once_for_all_metrics_are_those_ranked_for_each() -> None:
    impressions, pctr = sample(6, levels=5)
    weights = np.random.default_rng(1).integers(0, 3, (4, 40)).astype(np.float64)

    together = statistics(METRICS, impressions, pctr)

    for name, metric in METRICS.items():
        np.testing.assert_array_equal(
            together[name](weights), metric.build(impressions, pctr)(weights), err_msg=name
        )


def test_a_user_drawn_twice_counts_as_two_users_alike() -> None:
    impressions, pctr = sample(4)
    weights = np.random.default_rng(1).integers(0, 3, (1, 40)).astype(np.float64)
    times = weights[0, impressions.user].astype(np.int64)
    rows = np.repeat(np.arange(len(impressions)), times)
    copy = np.concatenate([np.arange(t) for t in times])
    twice = impressions.clicked[rows], pctr[rows], impressions.user[rows] * 3 + copy
    plain = ranker_metrics(*twice)

    found = {
        name: METRICS[name].build(impressions, pctr)(weights)[0]
        for name in ("auc", "gauc", "log_loss", "normalised_entropy", "calibration")
    }

    for name, value in found.items():
        assert value == pytest.approx(plain[name], abs=1e-9), name


def test_calibration_error_of_a_replicate_keeps_the_bins_of_the_sample() -> None:
    impressions, pctr = sample(5)
    curve = calibration_curve(impressions.clicked, pctr)

    ece = METRICS["ece"].build(impressions, pctr)
    mce = METRICS["mce"].build(impressions, pctr)

    assert ece(3 * ONES)[0] == pytest.approx(curve.ece)
    assert mce(3 * ONES)[0] == pytest.approx(curve.mce)


def test_a_weighting_without_one_of_the_classes_is_undefined_not_a_guess() -> None:
    impressions = Impressions.of([0, 1], [0, 1])
    only_the_first = np.array([[1.0, 0.0]])

    for name in ("auc", "gauc", "normalised_entropy", "calibration", "precision", "recall"):
        found = METRICS[name].build(impressions, np.array([0.2, 0.7]))(only_the_first)
        assert np.isnan(found).all(), name


def test_a_mean_leaves_out_rows_without_a_value() -> None:
    statistic = mean_of(np.array([1.0, np.nan, 3.0]), np.array([0, 0, 1]), 2)

    assert statistic(np.array([[1.0, 1.0], [3.0, 1.0]])).tolist() == [2.0, 1.5]
