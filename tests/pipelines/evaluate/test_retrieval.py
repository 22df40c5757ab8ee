"""What retrieval's lists are worth: each metric against its definition, its ends by user."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluate.impressions import Ints
from pipelines.evaluate.lists import LIST_METRICS, rank_lists
from pipelines.evaluate.retrieval import (
    SHOWN,
    SHOWN_METRICS,
    Retrieved,
    retrieval_metrics,
    retrieved,
)
from rankstream.errors import InvalidInput

ITEMS = 30
CATEGORY = np.arange(ITEMS) % 3
IMPRESSIONS = np.arange(ITEMS)[::-1].copy()


def of_lists(lists: Ints, wanted: Ints, user: Ints) -> Retrieved:
    """As if each query were the number of its list."""
    queries = [np.array([place]) for place in range(len(lists))]
    return retrieved(lists.shape[1], queries, wanted, user, lambda query, k: lists[query[0], :k])


def some_lists(rng: np.random.Generator, likes: int, depth: int) -> tuple[Ints, Ints, Ints]:
    lists = np.array([rng.permutation(ITEMS)[:depth] for _ in range(likes)])
    return lists, rng.integers(0, ITEMS, likes), rng.integers(0, 1 + likes // 2, likes)


def test_recall_counts_the_likes_that_are_among_the_candidates() -> None:
    histories = [np.array([0]), np.array([1]), np.array([2])]

    found = retrieved(
        2, histories, np.array([5, 6, 9]), np.arange(3), lambda history, k: np.arange(5, 5 + k)
    )

    assert found.rank.tolist() == [0, 1, -1]
    assert found.top[0].tolist() == [5, 6] + [-1] * (SHOWN - 2)
    metrics = retrieval_metrics(found, CATEGORY, IMPRESSIONS, seed=1)
    assert metrics["recall_at_2"].value == pytest.approx(2 / 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, ITEMS))
def test_metrics_are_those_of_lists_in_which_the_liked_item_alone_is_relevant(
    seed: int, likes: int, depth: int
) -> None:
    lists, wanted, user = some_lists(np.random.default_rng(seed), likes, depth)
    inside = (lists == wanted[:, None]).any(axis=1)
    # What a list lacks is judged too, below everything that it holds.
    judged = np.hstack([lists, np.where(inside, ITEMS, wanted)[:, None]])
    query = np.repeat(np.arange(likes), depth + 1)
    score = np.tile(-np.arange(depth + 1), likes)
    ranked = rank_lists(query, score, (judged == wanted[:, None]).ravel(), SHOWN)

    found = retrieval_metrics(of_lists(lists, wanted, user), CATEGORY, IMPRESSIONS, seed=1)

    assert found[f"recall_at_{depth}"].value == pytest.approx(inside.mean())
    for name, k in SHOWN_METRICS:
        expected = LIST_METRICS[name](ranked, k)[inside].sum() / likes
        assert found[f"{name}_at_{k}"].value == pytest.approx(expected), name


def test_means_have_ends_around_them_and_what_all_lists_cover_has_none() -> None:
    lists, wanted, user = some_lists(np.random.default_rng(2), 400, 12)

    found = retrieval_metrics(of_lists(lists, wanted, user), CATEGORY, IMPRESSIONS, seed=1)

    for name, one in found.items():
        if name in ("coverage", "gini"):
            assert np.isnan([one.low, one.high]).all()
        else:
            assert one.low < one.value < one.high, name


def test_ends_are_wider_when_the_likes_are_of_few_users() -> None:
    lists, wanted, _ = some_lists(np.random.default_rng(3), 400, 12)
    wanted[:200] = lists[:200, 0]
    by_user = np.repeat(np.arange(20), 20)

    few = retrieval_metrics(of_lists(lists, wanted, by_user), CATEGORY, IMPRESSIONS, seed=1)
    many = retrieval_metrics(of_lists(lists, wanted, np.arange(400)), CATEGORY, IMPRESSIONS, seed=1)

    width = [m["mrr_at_10"].high - m["mrr_at_10"].low for m in (few, many)]
    # Of whole numbers the two sums are equal; of fractions the order of addition may move a bit.
    assert few["hit_rate_at_10"].value == many["hit_rate_at_10"].value
    assert few["mrr_at_10"].value == pytest.approx(many["mrr_at_10"].value, rel=1e-14)
    assert width[0] > 2 * width[1]


def test_a_metric_that_is_undefined_is_left_out() -> None:
    one_each = np.arange(4)[:, None]

    found = retrieval_metrics(
        of_lists(one_each, np.arange(4), np.arange(4)), CATEGORY, IMPRESSIONS, seed=1
    )

    assert "diversity" not in found
    assert found["recall_at_1"].value == 1.0


def test_nothing_retrieved_is_refused() -> None:
    nothing = of_lists(np.empty((2, 0), np.int64), np.arange(2), np.arange(2))

    with pytest.raises(InvalidInput, match=r"0 recommended items \(at least 1\)"):
        retrieval_metrics(nothing, CATEGORY, IMPRESSIONS, seed=1)
