"""Calibrated probabilities hold on other rows, keep the order, and are in the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.train.artefact import PARITY_MAX_ABS, ranker_parity
from pipelines.train.calibration import (
    FITS,
    FOLDS,
    Curve,
    Method,
    chosen_method,
    fit_calibrated,
    held_out,
    isotonic,
    platt,
)
from pipelines.train.families import FITS as RANKERS
from pipelines.train.families import Family
from pipelines.train.rankers import Floats, Labels, Ranker, fit_logistic_regression
from pipelines.train.sampling import fit_on_fewer
from rankstream.errors import InvalidInput

Doubles = npt.NDArray[np.float64]


def sigmoid(logit: Doubles) -> Doubles:
    return 1.0 / (1.0 + np.exp(-logit))


def drawn(truth: Doubles, *, seed: int) -> Labels:
    return (np.random.default_rng(seed).random(len(truth)) < sigmoid(truth)).astype(np.uint8)


def some_logits(n: int) -> Doubles:
    return np.random.default_rng(1).normal(-1.0, 1.5, n)


def some_rows(n: int, *, seed: int = 1) -> tuple[Floats, Labels]:
    features = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return features, drawn(1.2 * features[:, 0].astype(np.float64) - 1.5, seed=seed)


def too_sure(features: Floats, clicked: Labels, *, seed: int) -> Ranker:
    """A ranker that is right but for its logit, which is half as large again, and one more."""
    honest = fit_logistic_regression(features, clicked, seed=seed)
    wrong = Curve(np.zeros(1), np.ones(1), 1.5)

    def predict(rows: Floats) -> Doubles:
        learned = honest.predict(rows)
        return sigmoid(wrong(np.log(learned / (1.0 - learned))))

    return Ranker(honest.family, wrong.graph(honest.graph), predict, honest.parameters)


def calibrated(
    fit: Callable[..., Ranker], features: Floats, clicked: Labels, method: Method
) -> Ranker:
    def of_rows(rows: npt.NDArray[np.intp]) -> Ranker:
        return fit(features[rows], clicked[rows], seed=1)

    return fit_calibrated(of_rows, features, clicked, method=method, seed=1)


def test_platt_finds_the_line_that_the_labels_were_drawn_with() -> None:
    logit = some_logits(200_000)

    curve = platt(logit, drawn(0.7 * logit - 0.4, seed=2))

    assert curve.ends == pytest.approx(0.7, abs=0.02)
    assert curve.y[0] == pytest.approx(-0.4, abs=0.03)


def test_isotonic_finds_a_bend_that_no_line_has() -> None:
    logit = some_logits(200_000)
    truth = np.where(logit > 0.0, 0.2 * logit, 2.0 * logit)
    clicked = drawn(truth, seed=2)

    pctr = sigmoid(isotonic(logit, clicked)(logit))

    assert np.abs(pctr - sigmoid(truth)).mean() < 0.006
    line = sigmoid(platt(logit, clicked)(logit))
    assert np.abs(line - sigmoid(truth)).mean() > 0.02


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 1)), min_size=2, max_size=200),
    st.lists(st.floats(-20, 20), min_size=2, max_size=30),
)
@settings(max_examples=80, deadline=None)
def test_isotonic_keeps_the_order_of_everything(
    rows: list[tuple[float, int]], asked: list[float]
) -> None:
    logit = np.array([row[0] for row in rows])
    curve = isotonic(logit, np.array([row[1] for row in rows], np.uint8))

    mapped = curve(np.array(sorted(asked)))

    assert curve.rises
    assert np.all(np.diff(mapped) >= -1e-12)  # but for rounding
    assert np.all(np.isfinite(mapped))


@pytest.mark.parametrize("method", FITS)
@pytest.mark.parametrize("family", [Family.LOGISTIC_REGRESSION, Family.RANDOM_FOREST])
def test_the_graph_says_what_the_calibrated_library_says(method: Method, family: Family) -> None:
    features, clicked = some_rows(6_000)

    def fewer(rows: Floats, labels: Labels, *, seed: int) -> Ranker:
        return fit_on_fewer(RANKERS[family], rows, labels, share=0.3, seed=seed)

    ranker = calibrated(fewer, features, clicked, method)

    assert ranker_parity(ranker, features, seed=1) <= PARITY_MAX_ABS
    graph = ort.InferenceSession(ranker.graph)
    assert [found.name for found in graph.get_outputs()] == ["logit", "pctr"]
    assert ranker.parameters["calibration"] == method
    plain = fewer(features, clicked, seed=1)
    assert np.abs(ranker.predict(features) - plain.predict(features)).max() > 1e-3


def test_a_ranker_that_is_too_sure_is_put_right() -> None:
    features, clicked = some_rows(40_000)
    later, observed = some_rows(40_000, seed=2)

    best = calibrated(too_sure, features, clicked, Method.BEST)

    off = too_sure(features, clicked, seed=1).predict(later).mean() - observed.mean()
    assert best.parameters["calibration"] == Method.PLATT
    assert off > 0.05
    assert abs(best.predict(later).mean() - observed.mean()) < 0.01


def test_a_ranker_that_is_right_is_left_alone() -> None:
    features, clicked = some_rows(20_000)

    best = calibrated(fit_logistic_regression, features, clicked, Method.BEST)

    assert best.graph == fit_logistic_regression(features, clicked, seed=1).graph


def test_an_earlier_time_that_clicked_more_is_no_reason_for_a_curve() -> None:
    """Feature 3 is the time; the ranker of all rows knows what it does."""
    features, _ = some_rows(40_000)
    features[:, 3] = np.linspace(-1.0, 1.0, 40_000)
    truth = (1.2 * features[:, 0] - 1.5 - 1.5 * (features[:, 3] > 0.6)).astype(np.float64)
    clicked = drawn(truth, seed=4)

    best = calibrated(RANKERS[Family.XGBOOST], features, clicked, Method.BEST)

    newest = features[:, 3] > 0.8
    assert abs(best.predict(features[newest]).mean() - clicked[newest].mean()) < 0.01


def test_what_is_of_use_to_one_ranker_and_not_to_another_is_not_believed() -> None:
    logit = some_logits(40_000)

    def method(*offs: float) -> Method:
        return chosen_method(
            [logit for _ in offs],
            [drawn(logit + off, seed=3 + fold) for fold, off in enumerate(offs)],
        )

    assert method(0.5, -0.5) is Method.NONE
    assert method(0.5, 0.0) is Method.NONE
    assert method(0.5, 0.5) is Method.PLATT


@given(st.integers(0, 500), st.integers(0, 9))
def test_no_row_is_held_out_twice(n: int, seed: int) -> None:
    folds = held_out(n, seed=seed)

    assert [len(fold) for fold in folds] == [round(n / 5)] * FOLDS
    rows = np.concatenate(folds)
    assert len(np.unique(rows)) == len(rows)
    assert all(np.all(np.diff(fold) > 0) for fold in folds)


def test_held_rows_of_one_label_calibrate_nothing() -> None:
    features, clicked = some_rows(2_000)
    clicked[np.concatenate(held_out(2_000, seed=1))] = 0

    best = calibrated(fit_logistic_regression, features, clicked, Method.BEST)

    assert best.graph == fit_logistic_regression(features, clicked, seed=1).graph
    with pytest.raises(InvalidInput, match="800 rows, 0 of them clicked: one class only"):
        calibrated(fit_logistic_regression, features, clicked, Method.PLATT)


def test_scores_that_order_clicks_the_wrong_way_round_are_refused() -> None:
    features, clicked = some_rows(2_000)
    held = np.concatenate(held_out(2_000, seed=1))
    clicked[held] = drawn(-3.0 * features[held, 0].astype(np.float64), seed=3)

    with pytest.raises(InvalidInput, match="turns the order of scores around"):
        calibrated(fit_logistic_regression, features, clicked, Method.PLATT)
