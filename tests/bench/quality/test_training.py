"""Rows that training is measured on."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import training
from bench.quality.training import draw, growth, measured
from pipelines.train.families import Family


def test_more_rows_begin_with_the_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHUNK_ROWS", 64)

    few, many = draw(100, seed=3), draw(300, seed=3)

    assert np.array_equal(few.features, many.features[:100])
    assert np.array_equal(few.clicked, many.clicked[:100])
    assert np.array_equal(few.purchased, many.purchased[:100])
    assert len(np.unique(many.features[:, 0])) == 300


def test_there_is_more_to_learn_than_a_line() -> None:
    line, trees = (
        measured(family, 20_000) for family in (Family.LOGISTIC_REGRESSION, Family.XGBOOST)
    )

    assert 0.65 < line.auc < trees.auc - 0.02
    assert line.peak_gb > line.rows_gb > 0
    assert min(line.cpu_s, trees.cpu_s) > 0


def test_a_cost_that_grows_with_the_square_has_exponent_two() -> None:
    assert growth({10: 3.0, 100: 300.0, 20: 12.0}) == pytest.approx(2.0)
