"""Exported graphs give what the libraries give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import xgboost as xgb

from pipelines.train.artefact import PARITY_MAX_ABS, ranker_parity, tower_parity
from pipelines.train.graphs import linear_graph, tree_graph
from pipelines.train.neural_rankers import fit_mmoe, fit_wide_deep
from pipelines.train.rankers import Floats, Labels, Ranker, fit_logistic_regression
from pipelines.train.retrieval import ItemVectors, mean_towers
from pipelines.train.trees import (
    fit_lightgbm,
    fit_random_forest,
    fit_xgboost,
    xgboost_trees,
)
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from tests.pipelines.rows import some_rows

TREES = (fit_xgboost, fit_lightgbm, fit_random_forest)


def fit_both_heads(features: Floats, clicked: Labels, *, seed: int) -> Ranker:
    return fit_mmoe(features, clicked, some_rows().purchased, seed=seed)


@pytest.mark.parametrize("fit", [fit_logistic_regression, *TREES, fit_wide_deep, fit_both_heads])
def test_a_ranker_graph_gives_the_library_s_probability(fit: Callable[..., Ranker]) -> None:
    rows = some_rows()
    ranker = fit(rows.features, rows.clicked, seed=1)
    extreme = np.concatenate([rows.features, 100 * rows.features, np.zeros_like(rows.features)])

    gap = ranker_parity(ranker, extreme, seed=1)

    assert gap <= PARITY_MAX_ABS
    logit, pctr = ort.InferenceSession(ranker.graph).run(
        ["logit", "pctr"], {"features": extreme[:5]}
    )
    assert logit.shape == pctr.shape == (5,)
    assert logit.dtype == pctr.dtype == np.float32


def test_a_tree_graph_sends_values_at_the_threshold_and_missing_ones_the_same_way() -> None:
    rng = np.random.default_rng(2)
    features = rng.integers(0, 4, (2_000, 3)).astype(np.float32)  # few values: many ties
    features[rng.random(features.shape) < 0.1] = np.nan
    label = (np.nan_to_num(features[:, 0], nan=3.0) + rng.normal(size=2_000) > 2).astype(int)
    names = ["f0", "f1", "f2"]
    booster = xgb.train(
        {"objective": "binary:logistic", "max_depth": 4, "nthread": 1},
        xgb.DMatrix(features, label, feature_names=names),
        20,
    )

    session = ort.InferenceSession(tree_graph(xgboost_trees(booster), 3))

    (pctr,) = session.run(["pctr"], {"features": features})
    expected = booster.predict(xgb.DMatrix(features, feature_names=names))
    assert np.abs(pctr - expected).max() <= 1e-6


@pytest.mark.parametrize("fit", TREES)
def test_rows_at_a_threshold_go_where_the_library_sends_them(fit: Callable[..., Ranker]) -> None:
    rng = np.random.default_rng(4)
    # Neighbours in float32, around zero too: thresholds lie between them in float64 only.
    grid = np.array([-1e-30, 0.0, 1e-30, 1.0, np.nextafter(np.float32(1), np.float32(2)), 3.0])
    features = rng.choice(grid.astype(np.float32), (4_000, 4))
    clicked = (rng.random(4_000) < 0.2 + 0.6 * (features[:, 0] > 1)).astype(np.uint8)
    ranker = fit(features, clicked, seed=1)

    (pctr,) = ort.InferenceSession(ranker.graph).run(["pctr"], {"features": features})

    assert np.abs(pctr - ranker.predict(features)).max() <= 1e-6


def test_a_graph_that_differs_is_refused() -> None:
    rows = some_rows()
    ranker = fit_logistic_regression(rows.features, rows.clicked, seed=1)
    width = spec.WIDTH
    wrong = linear_graph(np.zeros(width), np.ones(width), np.zeros(width), 0.0)

    with pytest.raises(InvalidArtifact, match=r"logistic_regression is off by 0\.\d+ \(limit"):
        ranker_parity(replace(ranker, graph=wrong), rows.features, seed=1)


def test_a_graph_whose_purchases_differ_is_refused() -> None:
    rows = some_rows()
    ranker = fit_mmoe(rows.features, rows.clicked, rows.purchased, seed=1)

    with pytest.raises(InvalidArtifact, match=r"mmoe is off by 0\.\d+ \(limit"):
        ranker_parity(replace(ranker, predict_pcvr=ranker.predict), rows.features, seed=1)


def test_the_tower_is_the_weighted_mean_of_what_it_knows() -> None:
    vectors = np.random.default_rng(3).normal(size=(20, 6)).astype(np.float32)
    items = ItemVectors(tuple(f"i{k}" for k in range(20)), vectors, np.ones(20, np.float32))

    assert tower_parity(mean_towers(items), seed=1) <= 1e-6
