"""Two towers on users who walk through the items in one order, in two categories."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from pipelines.train import two_tower
from pipelines.train.artefact import PARITY_MAX_ABS, tower_parity
from pipelines.train.item_to_item import Actions
from pipelines.train.retrieval import Towers
from pipelines.train.two_tower import DIMENSIONS, FAMILY, fit_two_tower
from rankstream.errors import InvalidInput
from rankstream.features.rows import RECENT

ITEMS, NEVER_USED, USERS, STEPS = 24, 24, 60, 12
CATEGORY = np.arange(ITEMS + 1) % 2
ITEM_ID = tuple(f"i{item}" for item in range(ITEMS + 1))


def walks(seed: int = 1) -> Actions:
    """Each user starts anywhere and goes on by one item."""
    start = np.random.default_rng(seed).integers(0, ITEMS, USERS)
    step = np.arange(STEPS)
    return Actions.of(np.repeat(np.arange(USERS), STEPS), ((start[:, None] + step) % ITEMS).ravel())


def fit(seed: int = 1) -> Towers:
    popularity = np.ones(ITEMS + 1, np.float32)
    return fit_two_tower(ITEM_ID, CATEGORY, walks(), popularity, seed=seed)


@pytest.fixture(scope="module")
def towers() -> Towers:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_tower, "BATCH", 64)
        patch.setattr(two_tower, "ROUNDS_MAX", 30)
        patch.setattr(two_tower, "LEARNING_RATE", 1e-2)
        return fit()


def queried(towers: Towers, history: list[int]) -> np.ndarray:
    recent = np.array([history], np.int64)
    query: np.ndarray = towers.query(recent, np.ones(recent.shape, np.float32))[0]
    return query


def test_what_comes_next_is_found_first(towers: Towers) -> None:
    vectors, found = towers.items.vectors, 0
    for newest in range(ITEMS):
        history = [(newest - back) % ITEMS for back in range(6)]
        scores = vectors @ queried(towers, history)
        scores[history] = -np.inf
        found += int(np.argmax(scores)) == (newest + 1) % ITEMS

    assert found >= 20


def test_the_graph_agrees_with_jax(towers: Towers) -> None:
    assert tower_parity(towers, seed=3) <= PARITY_MAX_ABS
    assert towers.family == FAMILY
    assert towers.items.vectors.shape == (ITEMS + 1, DIMENSIONS + 1)


def test_only_the_last_actions_are_read_and_unknown_ones_are_nothing(towers: Towers) -> None:
    session = ort.InferenceSession(towers.graph, providers=["CPUExecutionProvider"])
    last = np.arange(RECENT)[None] % ITEMS

    def embedded(recent: np.ndarray) -> np.ndarray:
        feeds = {"recent": recent, "weight": np.ones(recent.shape, np.float32)}
        query: np.ndarray = session.run(["query"], feeds)[0]
        return query

    longer = np.concatenate([last, np.full((1, 9), 3)], axis=1)
    assert embedded(longer).tolist() == embedded(last).tolist()
    assert np.isfinite(embedded(np.array([[-1]]))).all()
    some, padded = np.array([[5, 6]]), np.array([[5, 6, -1, -1]])
    assert embedded(padded) == pytest.approx(embedded(some), abs=1e-6)


def test_an_item_that_nobody_used_has_its_category_s_vector_and_the_least_bias(
    towers: Towers,
) -> None:
    vectors = towers.items.vectors
    cold = vectors[NEVER_USED]

    likeness = vectors[:ITEMS, :-1] @ cold[:-1]

    own = CATEGORY[:ITEMS] == CATEGORY[NEVER_USED]
    assert likeness[own].mean() > likeness[~own].mean()
    assert cold[-1] == vectors[:ITEMS, -1].min()


def test_a_seed_gives_the_same_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_tower, "ROUNDS_MAX", 1)

    first, again = fit(1), fit(1)

    assert first.items.vectors.tolist() == again.items.vectors.tolist()
    assert first.graph == again.graph


def test_too_short_a_history_is_refused_by_name() -> None:
    actions = Actions.of(np.array([0, 1]), np.array([0, 1]))

    with pytest.raises(InvalidInput, match="0 users with a history and an action after it"):
        fit_two_tower(ITEM_ID, CATEGORY, actions, np.ones(ITEMS + 1, np.float32), seed=1)
