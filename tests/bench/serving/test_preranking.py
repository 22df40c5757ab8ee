"""What a cut takes from a list."""

from __future__ import annotations

import numpy as np
import pytest

from bench.serving.preranking import lost
from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL

N = 30
BY_FIRST = np.eye(1, len(PARTIAL))[0]


def a_list() -> np.ndarray:
    """Candidates that the stand-in puts in order, the first one last."""
    features = np.zeros((N, spec.WIDTH), np.float32)
    features[:, PARTIAL[0]] = np.arange(N)
    return features


@pytest.mark.parametrize(("place", "cost"), [(N - 1, 0.0), (0, 1.0)])
def test_a_click_that_is_cut_is_lost_and_one_that_stays_is_not(place: int, cost: float) -> None:
    clicked = np.arange(N) == place

    found = lost(lambda x: [clicked.astype(np.float32)], BY_FIRST, a_list(), clicked, 10)

    assert (found["ndcg10"], found["ndcg_cost"]) == (1.0, cost)
    # The first of the ranker is the clicked one, the others are tied.
    assert found["overlap20"] == pytest.approx(0.05 * (place == N - 1), abs=0.01)


def test_a_list_without_clicks_says_nothing() -> None:
    nothing = np.zeros(N, bool)

    assert lost(lambda x: [x[:, 0]], BY_FIRST, a_list(), nothing, 10) == {}
