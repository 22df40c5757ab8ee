"""What the second stage learns from, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest

from bench.quality import two_stage
from bench.quality.leave_one_out import Task
from bench.quality.two_stage import Queries, fit, ndcg, queries
from pipelines.datasets.movielens import Film

FILMS = tuple(Film(str(item), f"f{item}", 1990.0 + item, ("Drama",)) for item in range(30))


def a_task(*, held: int) -> Task:
    """20 users who rate ten films in a row each."""
    user = np.repeat(np.arange(20), 10)
    item = (user + np.tile(np.arange(10), 20)) % 30
    return Task(
        users=20,
        items=30,
        user=user,
        item=item,
        liked=np.arange(200) % 3 > 0,
        time_ms=np.arange(200, dtype=np.int64) * 1_000,
        category=np.zeros(30, np.int64),
        held_user=np.arange(20),
        held_item=np.full(20, held),
    )


def test_candidates_are_unseen_films_and_features_do_not_know_which_was_left_out() -> None:
    one, other = (queries(a_task(held=held), FILMS) for held in (25, 4))

    assert one.features.tolist() == other.features.tolist()
    assert one.size.tolist() == [20] * 20
    query = np.repeat(np.arange(20), one.size)
    # Film 25 was rated by users 16 to 19.
    assert np.bincount(query, one.found).tolist() == [1] * 16 + [0] * 4


def test_the_gain_is_that_of_the_place_of_the_one_that_counts() -> None:
    found = np.array([0, 1, 0, 0, 0, 1], np.uint8)
    size = np.array([3, 2, 1])
    scores = np.array([3.0, 2.0, 1.0, 5.0, 4.0, 0.0])

    # Second of its list; in none; first.
    assert ndcg(found, size, scores) == pytest.approx((1 / np.log2(3) + 0 + 1) / 3)


def test_trees_learn_which_feature_tells_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_stage, "ROUNDS", 20)
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3_000, 4)).astype(np.float32)
    size = np.full(300, 10)
    found = np.zeros(3_000, np.uint8)
    best = np.argmax(features[:, 2].reshape(300, 10), axis=1)
    found[np.arange(300) * 10 + best] = 1
    found[:10] = 0  # a list without the film teaches nothing
    lesson = Queries(features, found, size)

    scores = np.asarray(fit([lesson], seed=1).predict(features), np.float64)

    assert ndcg(found, size, scores) > 0.9
