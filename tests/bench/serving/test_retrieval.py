"""The vectors that retrieval is measured on, and the measurement on few of them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.serving import retrieval
from bench.serving.vectors import DIMENSIONS, draw_items, draw_queries


def test_items_are_of_unit_length_and_nearer_to_their_own_cluster() -> None:
    drawn = draw_items(5_000, seed=1)
    queries = draw_queries(drawn, 20, seed=2)

    assert drawn.vectors.shape == (5_000, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(drawn.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    same = drawn.cluster[:, None] == drawn.cluster
    alike = drawn.vectors @ drawn.vectors.T
    assert alike[same].mean() > alike[~same].mean() + 0.3
    again = draw_items(5_000, seed=1)
    assert (again.vectors == drawn.vectors).all()


def test_the_figures_that_were_promised_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "REPEATS", 1)
    monkeypatch.setattr(retrieval, "MEASURED_ON", 20)

    rows = {row.id: row.value for row in retrieval.measured("1m", 25_000)}

    assert {f"retrieval.1m.{name}" for name in ("cpu_ms", "recall500", "gb")} <= rows.keys()
    for percent in ("50", "10", "1", "0.1"):
        assert rows[f"retrieval.filter.{percent}.recall"] > 0.9
        assert rows[f"retrieval.filter.{percent}.filled"] == 1
    assert rows["retrieval.1m.recall500"] > 0.9
    assert 0 < rows["retrieval.1m.gb"] < 25_000 * DIMENSIONS * 4 / 1e9
