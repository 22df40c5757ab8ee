"""Recent actions, tastes and attributes of a user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id64
from rankstream.features.deltas import Additions
from rankstream.features.rows import CATEGORIES, RECENT, TOTALS, USER_ROW, Rows
from rankstream.features.state import UserStates
from rankstream.features.tastes import TASTES_HELD


def _row(states: UserStates) -> Rows:
    return np.frombuffer(states.packed(["ann"])[0][1], USER_ROW)


def _shown(states: UserStates, categories: Sequence[str], times_ms: Sequence[int]) -> None:
    """An impression to ann in each category."""
    n = len(categories)
    amounts = np.zeros((n, len(TOTALS)), np.int64)
    amounts[:, TOTALS.index("impressions")] = 1
    strings = ["", "ann", "i", *categories]
    user, item = np.full(n, 1), np.full(n, 2)
    category, none = np.arange(3, n + 3), np.zeros(n, np.int64)
    times = np.array(times_ms)
    additions = Additions(strings, user, item, category, none, none, times, amounts)
    states.count(np.array(states.rows(["ann"] * n)), additions)


def test_the_newest_actions_are_kept_in_order_of_time_however_they_came() -> None:
    states = UserStates(0)
    (ann,) = states.rows(["ann"])
    times = [*range(1, RECENT + 20)]

    for time_ms in times[::2] + times[1::2]:
        states.act([(ann, f"i{time_ms}", "drama", time_ms, 1.5, int(Kind.RATE))])

    recent = _row(states)["recent"][0]
    assert recent["time_ms"].tolist() == sorted(times, reverse=True)[:RECENT]
    assert recent["item"][0] == id64(f"i{times[-1]}")
    assert recent["value"][0] == 1.5


def test_the_categories_used_last_are_in_the_row() -> None:
    states = UserStates(0)
    names = [f"c{n}" for n in range(CATEGORIES + 5)]

    _shown(states, names, range(1, len(names) + 1))

    tastes = _row(states)["tastes"][0]
    assert set(tastes["category"].tolist()) == {id64(name) for name in names[5:]}
    assert tastes["impressions"].sum() == CATEGORIES


def test_the_category_used_longest_ago_is_forgotten_past_the_limit() -> None:
    states = UserStates(0)
    names = [f"c{n}" for n in range(TASTES_HELD + 1)]
    _shown(states, names, range(1, len(names) + 1))

    _shown(states, ["c0"], [10**6])

    tastes = _row(states)["tastes"][0]
    assert tastes["impressions"][tastes["category"] == id64("c0")].tolist() == [1]


def test_the_newest_attribute_wins_and_what_is_no_number_is_ignored() -> None:
    states = UserStates(0)
    (ann,) = states.rows(["ann"])

    states.learn(ann, 20, {"age": 31.0, "gender_male": "yes", "shoe": 44.0})
    states.learn(ann, 10, {"age": 30.0})
    states.learn(ann, 30, {"age": float("nan")})
    states.learn(ann, 30, {"age": 1e300})

    attributes = _row(states)["attributes"][0].tolist()
    assert attributes[0] == 31.0
    assert np.isnan(attributes[1])
