"""Contributions by occlusion."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.ranking import explain
from rankstream.ranking.explain import contributions

RNG = np.random.default_rng(7)


def test_contributions_of_a_linear_model_are_exact_and_add_up_to_the_logit() -> None:
    weights = RNG.normal(size=8).astype(np.float32)
    features = RNG.normal(size=(5, 8)).astype(np.float32)
    means = RNG.normal(size=8).astype(np.float32)

    added = contributions(lambda rows: rows @ weights, features, means)

    assert added == pytest.approx(weights * (features - means), abs=1e-5)
    assert added.sum(axis=1) + means @ weights == pytest.approx(features @ weights, abs=1e-5)


def test_blocks_agree_with_one_feature_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "ROWS_PER_CALL", 7)
    features = RNG.normal(size=(5, 3)).astype(np.float32)
    means = np.zeros(3, np.float32)

    def logit_of(rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> explain.Floats:
        product: explain.Floats = rows[:, 0] * rows[:, 1] + rows[:, 2] ** 2
        return product

    added = contributions(logit_of, features, means)

    for i, j in np.ndindex(5, 3):
        without = features[i : i + 1].copy()
        without[0, j] = means[j]
        expected = logit_of(features[i : i + 1])[0] - logit_of(without)[0]
        assert added[i, j] == pytest.approx(expected, abs=1e-5)


def test_an_empty_slate_has_no_contributions() -> None:
    nothing = np.empty((0, 4), np.float32)

    assert contributions(lambda rows: rows.sum(axis=1), nothing, np.zeros(4, np.float32)).shape == (
        0,
        4,
    )
