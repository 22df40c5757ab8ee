"""The truth of simulated users is learnable, calibrated and unsaturated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from rankstream.errors import InvalidInput
from rankstream.simulation.truth import Truth, fit_truth

USERS = tuple(f"u{k}" for k in range(120))
ITEMS = tuple(f"i{k}" for k in range(90))


def a_world(
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ratings of a known two-factor model: user, item, liked, true probability."""
    rng = np.random.default_rng(seed)
    user, item = (axis.ravel() for axis in np.indices((len(USERS), len(ITEMS))))
    p, q = rng.normal(0, 1, (len(USERS), 2)), rng.normal(0, 1, (len(ITEMS), 2))
    probability = expit(
        rng.normal(0, 0.5, len(ITEMS))[item] + np.einsum("nf,nf->n", p[user], q[item])
    )
    return user, item, rng.random(len(user)) < probability, probability


def test_held_out_likes_are_ranked_and_calibrated() -> None:
    user, item, liked, probability = a_world(seed=3)
    held_out = np.random.default_rng(4).random(len(user)) < 0.2

    truth = fit_truth(
        USERS, ITEMS, user[~held_out], item[~held_out], liked[~held_out], seed=1, factors=2
    )

    estimate = np.array(
        [truth.attraction(USERS[u], [ITEMS[i]])[0] for u, i in zip(user, item, strict=True)]
    )[held_out]
    best = roc_auc_score(liked[held_out], probability[held_out])
    assert best - 0.05 < roc_auc_score(liked[held_out], estimate) < best
    assert abs(estimate.mean() - liked[held_out].mean()) < 0.02
    assert 0.01 < estimate.min()
    assert estimate.max() < 0.99


def test_equal_seeds_give_equal_truths() -> None:
    user, item, liked, _ = a_world(seed=5)

    first = fit_truth(USERS, ITEMS, user, item, liked, seed=7)
    second = fit_truth(USERS, ITEMS, user, item, liked, seed=7)

    assert np.array_equal(first.user_factors, second.user_factors)


def test_a_stranger_and_an_unknown_item_are_average() -> None:
    truth = Truth(
        ("u",), ("i",), 0.0, np.array([1.0]), np.array([2.0]), np.ones((1, 1)), np.ones((1, 1))
    )

    assert truth.attraction("stranger", ["unknown"]).tolist() == [0.5]
    assert truth.attraction("stranger", ["i"]).tolist() == [float(expit(2.0))]
    assert truth.attraction("u", ["unknown", "i"]).tolist() == expit([1.0, 4.0]).tolist()


@pytest.mark.parametrize("liked", [[], [True, True], [False, False]])
def test_ratings_of_one_side_only_are_refused(liked: list[bool]) -> None:
    rows = np.zeros(len(liked), np.intp)

    with pytest.raises(InvalidInput, match="preferences need both kinds"):
        fit_truth(("u",), ("i",), rows, rows, np.array(liked, bool), seed=1)
