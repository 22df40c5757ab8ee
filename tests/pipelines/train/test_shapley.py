"""Shapley values of the logit: they add up to it, and an idle feature has none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train.families import FITS, Family
from pipelines.train.sampling import fit_on_fewer

WITH = (Family.LOGISTIC_REGRESSION, Family.XGBOOST, Family.LIGHTGBM)


def some_rows(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(n, 5)).astype(np.float32)
    features[:, 4] = 1.0
    logit = features[:, 0] - 0.5 * features[:, 1] * features[:, 2] - 1.0
    return features, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.uint8)


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize("family", WITH)
def test_they_add_up_to_the_logit_but_for_a_constant(family: Family, share: float) -> None:
    features, clicked = some_rows(4_000)
    ranker = fit_on_fewer(FITS[family], features, clicked, share=share, seed=1)
    asked = features[:300]

    assert ranker.shapley is not None
    values = ranker.shapley(asked)

    assert values.shape == asked.shape
    assert not values[:, 4].any()
    pctr = ranker.predict(asked)
    rest = np.log(pctr / (1 - pctr)) - values.sum(axis=1)
    assert np.ptp(rest) < 1e-4
    sizes = np.abs(values).mean(axis=0)
    assert sizes[0] == sizes.max()


def test_a_forest_has_none() -> None:
    features, clicked = some_rows(600)

    assert FITS[Family.RANDOM_FOREST](features, clicked, seed=1).shapley is None
