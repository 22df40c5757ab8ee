"""What a ranker loses without a feature, and how its pctr follows one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.evaluate.importance import ROWS_MAX, attention

NAMES = ("much", "little", "nothing", "constant")


def a_log(n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    features[:, 3] = 2.5
    return features, (rng.random(n) < predict(features)).astype(np.uint8)


def predict(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    logit = 2.0 * features[:, 0] - 0.5 * features[:, 1] + 0.0 * features[:, 2]
    pctr: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logit.astype(np.float64)))
    return pctr


def test_features_stand_in_order_of_what_is_lost_without_them() -> None:
    features, clicked = a_log(6_000)

    found = attention(predict, features, clicked, NAMES, seed=1)

    assert [one.feature for one in found.importances[:2]] == ["much", "little"]
    lost = {one.feature: one.auc_lost for one in found.importances}
    assert lost["much"] > 0.2 > lost["little"] > 0.005
    assert lost["nothing"] == lost["constant"] == 0.0
    assert found.rows == ROWS_MAX


def test_pctr_follows_a_feature_the_way_the_model_does() -> None:
    features, clicked = a_log(1_500)

    found = attention(predict, features, clicked, NAMES, seed=1)

    followed = {one.feature: one for one in found.dependences}
    assert set(followed) == {"much", "little"}
    assert np.all(np.diff(followed["much"].pctr) > 0)
    assert np.all(np.diff(followed["little"].pctr) < 0)
    probe = features.copy()
    probe[:, 0] = followed["much"].value[3]
    assert abs(followed["much"].pctr[3] - predict(probe).mean()) < 1e-6


def test_what_was_asked_for_is_left_as_it_was() -> None:
    features, clicked = a_log(500)
    before = features.copy()

    attention(predict, features, clicked, NAMES, seed=1)

    assert np.array_equal(features, before)


def test_shapley_values_stand_beside_by_their_mean_size() -> None:
    features, clicked = a_log(600)

    found = attention(
        predict, features, clicked, NAMES, seed=1, shapley=lambda rows: rows * [2.0, -0.5, 0.0, 0.0]
    )

    sizes = {one.feature: one.shap for one in found.importances}
    assert sizes["much"] == pytest.approx(2 * np.abs(features[:, 0]).mean(), rel=1e-5)
    assert sizes["little"] == pytest.approx(0.5 * np.abs(features[:, 1]).mean(), rel=1e-5)
    assert sizes["nothing"] == sizes["constant"] == 0.0
    without = attention(predict, features, clicked, NAMES, seed=1)
    assert {one.shap for one in without.importances} == {None}
