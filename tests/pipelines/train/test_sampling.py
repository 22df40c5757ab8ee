"""Fewer negatives, the same probabilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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


@given(
    clicked=arrays(np.uint8, st.integers(0, 60), elements=st.integers(0, 1)),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_click_is_kept_and_a_share_of_the_rest(
    clicked: np.ndarray, share: float, seed: int
) -> None:
    rows = kept_rows(clicked, share, seed=seed)

    assert np.array_equal(rows[clicked[rows] == 1], np.flatnonzero(clicked))
    assert len(rows) - clicked.sum() == round(share * (clicked == 0).sum())
    assert np.all(np.diff(rows) > 0)


def test_no_hour_keeps_more_than_its_share() -> None:
    _, clicked, _ = some_clicks(40_000, seed=1)

    rows = kept_rows(clicked, 0.1, seed=3)

    hours = np.arange(len(clicked)) // 500
    every = np.bincount(hours[clicked == 0])
    kept = np.bincount(hours[rows[clicked[rows] == 0]], minlength=len(every))
    assert np.all(np.abs(kept - 0.1 * every) <= 2)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_all_others_are_as_likely_to_be_kept(share: float) -> None:
    clicked, draws = np.zeros(13, np.uint8), 4_000

    kept = [kept_rows(clicked, share, seed=seed) for seed in range(draws)]

    counts = np.bincount(np.concatenate(kept), minlength=13)
    p = round(share * 13) / 13
    assert np.all(np.abs(counts / draws - p) < 5 * np.sqrt(p * (1 - p) / draws))


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
