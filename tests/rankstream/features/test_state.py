"""Recent actions, tastes and attributes of a user."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id32, id64
from rankstream.features.deltas import Additions
from rankstream.features.rows import (
    CATEGORIES,
    CONTEXT_ATTRIBUTES,
    RATED,
    RECENT,
    TOTALS,
    USER_ROW,
    Rows,
    empty_rows,
)
from rankstream.features.state import STATED, UserStates
from rankstream.features.tastes import TASTES_HELD

AGE, TRAFFIC = STATED.index((Kind.USER_UPDATE, "age")), STATED.index((Kind.CONTEXT, "traffic"))


def _learn(states: UserStates, stated: Sequence[tuple[int, int, int, float]]) -> None:
    """Of each: the row of the user, the place in STATED, when, and the value."""
    row, attribute, time_ms, value = zip(*stated, strict=True)
    states.learn(np.array(row), np.array(attribute), np.array(time_ms), np.array(value, float))


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


RATINGS = st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]), st.sampled_from([1.0, 4.5]))


@given(st.lists(st.tuples(RATINGS, st.booleans()), max_size=40), st.randoms())
def test_the_newest_ratings_are_kept_among_other_actions_however_they_came(
    acted: list[tuple[tuple[int, str, float], bool]], random: Random
) -> None:
    states = UserStates(0)
    (ann,) = states.rows(["ann"])
    long_ago = [(-n, "z", 2.0) for n in range(RATED)]
    ratings = [rating for rating, is_rating in acted if is_rating] + long_ago
    actions = [
        (ann, item, "drama", time_ms, value, int(Kind.RATE if is_rating else Kind.VIEW))
        for (time_ms, item, value), is_rating in [*acted, *((old, True) for old in long_ago)]
    ]
    random.shuffle(actions)

    states.act(actions)

    newest = sorted(((when, id32(id64(item)), value) for when, item, value in ratings))[::-1]
    kept = _row(states)["rated"][0].tolist()
    assert kept == [(item, value) for _, item, value in newest[:RATED]]


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


def test_the_newest_attribute_wins_of_users_as_of_their_context() -> None:
    states = UserStates(0)
    (ann,) = states.rows(["ann"])

    _learn(states, [(ann, AGE, 20, 31.0), (ann, TRAFFIC, 5, 0.5), (ann, AGE, 10, 30.0)])
    _learn(states, [(ann, AGE, 19, 29.0), (ann, TRAFFIC, 6, 0.25)])

    row = _row(states)[0]
    assert row["attributes"][0] == 31.0
    assert np.isnan(row["attributes"][1])
    names = [known.name for known in CONTEXT_ATTRIBUTES]
    assert row["context"][names.index("traffic")].tolist() == (6, 0.25)
    assert row["context"]["time_ms"].sum() == 6


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("ann", "bob")),
            st.integers(0, len(STATED) - 1),
            st.integers(1, 3),
            st.sampled_from((-0.0, 0.0, -1.0, 0.1, 1e9)),
        ),
        max_size=12,
    ),
    st.data(),
)
def test_what_was_learned_depends_on_no_order_and_on_no_grouping(
    stated: list[tuple[str, int, int, float]], data: st.DataObject
) -> None:
    found = []
    for order in (stated, data.draw(st.permutations(stated))):
        states, size = UserStates(0), data.draw(st.integers(1, 12))
        row = dict(zip(("ann", "bob"), states.rows(["ann", "bob"]), strict=True))
        for start in range(0, len(order), size):
            part = order[start : start + size]
            _learn(states, [(row[user], place, at, value) for user, place, at, value in part])
        found.append(states.packed(["ann", "bob"]))

    assert found[0] == found[1]
    for user, packed in found[0]:
        row_of = np.frombuffer(packed, USER_ROW)[0]
        values = [*row_of["attributes"].tolist(), *row_of["context"]["value"].tolist()]
        for place, value in enumerate(values):
            mine = [(s[2], s[3]) for s in stated if s[:2] == (user, place)]
            expected = max(mine)[1] + 0.0 if mine else np.nan
            np.testing.assert_equal(value, float(np.float32(expected)))


def test_a_forgotten_user_is_unknown_when_another_gets_the_row() -> None:
    states = UserStates(0)
    (ann,) = states.rows(["ann"])
    _learn(states, [(ann, AGE, 20, 31.0), (ann, TRAFFIC, 20, 0.5)])

    assert states.expire(1) == {"ann"}

    assert states.rows(["bob"]) == [ann]
    assert states.packed(["bob"])[0][1][20:] == empty_rows(1, USER_ROW).tobytes()[20:]
