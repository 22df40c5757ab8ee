"""Neighbour lists against slow definitions of what they count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from pipelines.train import item_to_item
from pipelines.train.item_to_item import (
    EASE_PENALTY,
    PLACE_FADING,
    PLACES,
    POPULARITY_POWER,
    Actions,
    actions_before,
    cosine,
    ease,
    fit_item_to_item,
)
from rankstream.contracts.ids import id64
from rankstream.features.rows import RECENT
from tests.pipelines.rows import some_rows

ITEMS = 12


def some_actions(n: int = 200, *, seed: int = 3) -> Actions:
    rng = np.random.default_rng(seed)
    return Actions.of(rng.integers(0, 9, n), rng.integers(0, ITEMS - 1, n))


def used(actions: Actions) -> np.ndarray:
    table = np.zeros((9, ITEMS))
    table[actions.user, actions.item] = 1.0
    return table


def test_each_user_s_first_action_on_an_item_counts_in_order() -> None:
    actions = Actions.of(np.array([1, 0, 1, 1, 0]), np.array([4, 2, 3, 4, 2]))

    assert actions.user.tolist() == [0, 1, 1]
    assert actions.item.tolist() == [2, 4, 3]


@given(st.lists(st.lists(st.integers(1, 9), max_size=RECENT), min_size=1, max_size=12))
def test_the_actions_between_rows_are_read_from_what_the_rows_remember(
    between: list[list[int]],
) -> None:
    done: list[int] = []
    recent = np.zeros((2 * len(between), RECENT), np.uint64)
    for row, actions in enumerate(between):
        done += actions
        newest = [id64(f"i{item}") for item in done[::-1][:RECENT]]
        recent[2 * row, : len(newest)] = newest
    rows = some_rows(2 * len(between))
    rows = replace(rows, recent=recent, user=np.arange(2 * len(between)) % 2)  # user 1 does nothing
    item_id = tuple(f"i{item}" for item in range(9))  # i9 is unknown

    found = actions_before(rows, item_id)

    assert found.user.tolist() == [0] * len(found.user)
    assert found.item.tolist() == [item for item in dict.fromkeys(done) if item < 9]


def test_ease_is_a_ridge_regression_of_each_item_on_the_others() -> None:
    actions = some_actions()
    table = used(actions)

    weights = ease(actions, ITEMS).toarray()

    for item in range(ITEMS):
        others = [other for other in range(ITEMS) if other != item]
        ridge = Ridge(alpha=EASE_PENALTY, fit_intercept=False, tol=1e-12)
        expected = np.maximum(ridge.fit(table[:, others], table[:, item]).coef_, 0.0)
        assert weights[others, item] == pytest.approx(expected, abs=1e-8)
        assert weights[item, item] == 0.0


def test_cosine_is_that_of_the_columns_of_users() -> None:
    actions = some_actions()

    expected = cosine_similarity(used(actions).T)
    np.fill_diagonal(expected, 0.0)

    assert cosine(actions, ITEMS).toarray() == pytest.approx(expected)


def test_cosine_reads_the_newest_items_of_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_to_item, "COMPANY_MAX", 2)
    actions = Actions.of(np.zeros(3, np.int64), np.array([5, 1, 2]))

    assert np.argwhere(cosine(actions, 6).toarray() > 0).tolist() == [[1, 2], [2, 1]]


def test_successors_are_counted_by_places_and_damped_by_popularity() -> None:
    actions = some_actions()
    counts = np.zeros((ITEMS, ITEMS))
    for user in range(9):
        items = actions.item[actions.user == user].tolist()
        for at, item in enumerate(items):
            for place, later in enumerate(items[at + 1 : at + 1 + PLACES]):
                counts[item, later] += PLACE_FADING**place
    expected = counts / np.maximum(used(actions).sum(axis=0), 1) ** POPULARITY_POWER

    _, successors = fit_item_to_item(actions, items=ITEMS)

    found = np.zeros((ITEMS, ITEMS + 1))
    found[np.arange(ITEMS)[:, None], successors.rows] = successors.weight
    assert found[:, :ITEMS] == pytest.approx(expected)


def test_lists_hold_the_strongest_first_and_unused_items_have_none() -> None:
    found = fit_item_to_item(some_actions(2_000), items=ITEMS)

    for table in found:
        assert table.rows.shape == table.weight.shape
        assert (np.diff(table.weight, axis=1) <= 0).all()
        assert ((table.rows >= 0) == (table.weight > 0)).all()
        assert (table.rows[ITEMS - 1] == -1).all()
        assert not (table.rows == np.arange(ITEMS)[:, None]).any()


def test_only_the_strongest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    full = fit_item_to_item(some_actions(), items=ITEMS)
    monkeypatch.setattr(item_to_item, "COMPANY_NEIGHBOURS", 3)
    monkeypatch.setattr(item_to_item, "SUCCESSOR_NEIGHBOURS", 2)

    cut = fit_item_to_item(some_actions(), items=ITEMS)

    for whole, table, k in zip(full, cut, (3, 2), strict=True):
        assert table.rows.tolist() == whole.rows[:, :k].tolist()


def test_above_the_limit_of_ease_company_is_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_to_item, "EASE_ITEMS_MAX", 5)
    actions = some_actions()

    company, _ = fit_item_to_item(actions, items=ITEMS)

    assert company.weight[0, 0] == pytest.approx(cosine(actions, ITEMS).toarray()[0].max())
