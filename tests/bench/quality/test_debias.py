"""The simulated log is biased as it says, and its score is that of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from bench.quality.debias import POOL, RANDOM_SHARE, REQUESTS, SLOTS, World, ndcg, shown
from pipelines.datasets.movielens import read_ratings
from rankstream.simulation.attention import examination
from rankstream.simulation.truth import Truth
from tests.pipelines.datasets.test_movielens import INTER, ITEM, USER, a_folder

USERS, ITEMS = 4, 60


def a_world(folder: Path) -> World:
    """Film 0 was rated by one user, the last films by all; later films are liked more."""
    rng = np.random.default_rng(1)
    rated = [
        (user, item)
        for item in range(ITEMS)
        for user in range(USERS)
        if user <= item * USERS // ITEMS
    ]
    inter = "".join(f"{u}\t{i}\t{rng.integers(1, 6)}\t{100 + u + i}\n" for u, i in rated)
    item = "".join(f"{i}\tFilm {i}\t{1950 + i}\tDrama War\n" for i in range(ITEMS))
    user = "".join(f"{u}\t{20 + u}\tM\ttechnician\t85711\n" for u in range(USERS))
    ratings = read_ratings(
        a_folder(folder, inter=INTER + inter, item=ITEM + item, user=USER + user)
    )
    truth = Truth(
        tuple(viewer.user_id for viewer in ratings.viewers),
        tuple(film.item_id for film in ratings.films),
        0.0,
        np.zeros(USERS),
        np.linspace(-1.0, 1.0, ITEMS),
        np.zeros((USERS, 1)),
        np.zeros((ITEMS, 1)),
    )
    return World(ratings, truth)


def test_clicks_are_of_what_is_relevant_and_examined(tmp_path: Path) -> None:
    log = shown(a_world(tmp_path), np.arange(USERS), np.random.default_rng(2))

    assert len(log.clicked) == REQUESTS * SLOTS
    assert not np.any(log.clicked & ~log.relevant.astype(bool))
    for position, truth in enumerate(examination(SLOTS)):
        seen = log.clicked[(log.position == position) & (log.relevant == 1)].mean()
        assert seen == pytest.approx(truth, abs=0.02)


def test_propensities_are_those_of_being_shown(tmp_path: Path) -> None:
    log = shown(a_world(tmp_path), np.arange(USERS), np.random.default_rng(3))

    # Each of the pool is shown with its propensity: the sum of 1 / propensity counts the pool.
    assert np.sum(1 / log.propensity) / REQUESTS == pytest.approx(POOL, rel=0.02)
    assert log.randomised.mean() == pytest.approx(RANDOM_SHARE, rel=0.05)
    unlikely = log.propensity < 0.5
    assert log.randomised[unlikely].all()
    assert unlikely[log.randomised].mean() == pytest.approx(1 - SLOTS / POOL, rel=0.02)


def test_the_logging_ranker_believes_in_popularity_unless_the_order_is_random(
    tmp_path: Path,
) -> None:
    log = shown(a_world(tmp_path), np.arange(USERS), np.random.default_rng(4))

    popularity = log.features[:, 0]
    chosen = ~log.randomised
    top, last = log.position == 0, log.position == SLOTS - 1
    assert popularity[chosen & top].mean() > popularity[chosen & last].mean() + 0.1
    gap = popularity[~chosen & top].mean() - popularity[~chosen & last].mean()
    assert abs(gap) < 0.05


def test_ndcg_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    scores, gain = rng.normal(size=(20, POOL)), rng.random((20, POOL))

    assert ndcg(scores, gain) == pytest.approx(ndcg_score(gain, scores, k=SLOTS))
