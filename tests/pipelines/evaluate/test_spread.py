"""What lists do beside being right, against the definitions spelled out in loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate.impressions import Ints
from pipelines.evaluate.spread import diversity, gini, self_information, spread
from rankstream.errors import InvalidInput


def naive_diversity(items: list[int], category: Ints) -> float:
    """Share of pairs that differ."""
    pairs = list(combinations([i for i in items if i >= 0], 2))
    if not pairs:
        return float("nan")
    return sum(bool(category[a] != category[b]) for a, b in pairs) / len(pairs)


def naive_gini(exposure: Ints) -> float:
    """Half the relative mean absolute difference."""
    gaps = np.abs(exposure[:, None] - exposure[None, :]).mean()
    return float(gaps / (2 * exposure.mean()))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_diversity_is_the_share_of_pairs_that_differ(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    category = rng.integers(0, 4, 30)
    recommended = np.array([rng.permutation(30)[:k] for _ in range(8)])
    recommended[rng.random(recommended.shape) < 0.2] = -1

    found = diversity(recommended, category)

    expected = [naive_diversity(row, category) for row in recommended.tolist()]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(exposure: list[int]) -> None:
    given_exposure = np.array(exposure)

    assert gini(given_exposure) == pytest.approx(naive_gini(given_exposure), abs=1e-12)


def test_a_recommender_of_one_popular_item_is_neither_new_nor_spread() -> None:
    shown = np.array([90, 5, 5, 0])
    only_the_top = np.zeros((10, 1), np.int64)
    everything = np.array([[0, 1, 2, 3]])

    narrow = spread(only_the_top, np.array([0, 0, 1, 1]), shown)
    wide = spread(everything, np.array([0, 0, 1, 1]), shown)

    assert narrow.coverage == 0.25
    assert narrow.gini == 0.75
    assert narrow.popularity.tolist() == [90] * 10
    assert narrow.popularity_rank == pytest.approx(np.full(10, 0.125))
    assert narrow.novelty == pytest.approx(np.full(10, np.log2(104 / 91)))
    assert np.isnan(narrow.diversity).all()
    assert wide.coverage == 1.0
    assert wide.gini == 0.0
    assert wide.popularity_rank.tolist() == [0.5]
    assert wide.diversity == pytest.approx([4 / 6])
    assert wide.novelty[0] > narrow.novelty.max()


def test_a_short_list_has_the_means_of_what_it_holds_and_an_empty_one_has_none() -> None:
    found = spread(np.array([[0, 3, -1], [-1, -1, -1]]), np.array([0, 0, 1, 1]), np.arange(4))

    assert found.popularity.tolist() == pytest.approx([1.5, np.nan], nan_ok=True)
    assert found.popularity_rank.tolist() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert found.diversity.tolist() == pytest.approx([1.0, np.nan], nan_ok=True)
    assert np.isfinite(found.novelty).tolist() == [True, False]
    assert found.coverage == 0.5


def test_an_item_never_shown_is_the_most_novel_and_finitely_so() -> None:
    bits = self_information(np.array([3, 0, 1]))

    assert bits.tolist() == pytest.approx([np.log2(7 / 4), np.log2(7), np.log2(7 / 2)])


def test_recommendations_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"recommended rows 0 to 9 of 2 items \(limit 0 to 1"):
        spread(np.array([[0, 9]]), np.array([0, 1]), np.array([1, 1]))
    with pytest.raises(InvalidInput, match=r"0 recommended items \(at least 1\)"):
        spread(np.array([[-1, -1]]), np.array([0, 1]), np.array([1, 1]))
