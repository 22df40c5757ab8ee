"""Boosted trees: which rows they learn from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pipelines.train.rankers import Ranker
from pipelines.train.trees import fit_lightgbm, fit_xgboost


@pytest.mark.parametrize("fit", [fit_xgboost, fit_lightgbm])
def test_trees_know_what_only_the_rows_that_stop_them_have_shown(
    fit: Callable[..., Ranker],
) -> None:
    rng = np.random.default_rng(1)
    n = 4_000
    features = rng.normal(size=(n, 2)).astype(np.float32)
    features[:, 1] = np.arange(n) >= round(n * 0.9)
    logit = 1.5 * features[:, 0] + 1.5 * features[:, 1]
    clicked = (rng.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(np.uint8)

    ranker = fit(features, clicked, seed=1)

    before, newest = ranker.predict(np.array([[0.0, 0.0], [0.0, 1.0]], np.float32))
    assert newest > before + 0.1
