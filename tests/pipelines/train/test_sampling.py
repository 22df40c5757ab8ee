"""Fewer negatives, the same probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest

from pipelines.train.artefact import PARITY_MAX_ABS, ranker_parity
from pipelines.train.families import FITS
from pipelines.train.rankers import Ranker, fit_logistic_regression
from pipelines.train.sampling import fit_on_fewer, kept_rows
from rankstream.errors import InvalidInput


def some_clicks(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and the probability that the labels were drawn with: about one in six."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    truth = 1 / (1 + np.exp(2.0 - 1.2 * features[:, 0].astype(np.float64)))
    return features, (rng.random(n) < truth).astype(np.uint8), truth


def test_every_click_is_kept_and_a_share_of_the_rest() -> None:
    _, clicked, _ = some_clicks(40_000, seed=1)

    rows = kept_rows(clicked, 0.1, seed=3)

    assert np.array_equal(rows[clicked[rows] == 1], np.flatnonzero(clicked))
    negatives = (clicked == 0).sum()
    kept = len(rows) - clicked.sum()
    assert abs(kept - 0.1 * negatives) < 4 * np.sqrt(0.09 * negatives)
    assert np.all(np.diff(rows) > 0)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="share of negatives"):
        kept_rows(np.array([0, 1], np.uint8), share, seed=1)


@pytest.mark.parametrize("fit", FITS.values())
def test_the_graph_says_what_the_corrected_library_says(fit: Callable[..., Ranker]) -> None:
    features, clicked, _ = some_clicks(6_000, seed=2)

    ranker = fit_on_fewer(fit, features, clicked, share=0.1, seed=1)

    assert ranker_parity(ranker, features, seed=1) <= PARITY_MAX_ABS
    graph = ort.InferenceSession(ranker.graph)
    assert [found.name for found in graph.get_outputs()] == ["logit", "pctr"]
    assert ranker.parameters["negatives"] == 0.1


def test_the_correction_gives_the_true_probabilities_back() -> None:
    features, clicked, truth = some_clicks(200_000, seed=4)

    fewer = fit_on_fewer(fit_logistic_regression, features, clicked, share=0.1, seed=1)

    pctr = fewer.predict(features)
    assert np.abs(pctr - truth).mean() < 0.005
    assert abs(pctr.mean() / clicked.mean() - 1) < 0.02


def test_all_negatives_leave_the_ranker_as_it_is() -> None:
    features, clicked, _ = some_clicks(2_000, seed=5)

    whole = fit_on_fewer(fit_logistic_regression, features, clicked, share=1.0, seed=1)

    assert whole.graph == fit_logistic_regression(features, clicked, seed=1).graph
