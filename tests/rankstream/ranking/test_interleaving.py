"""Team-draft interleaving against its definition, coin by coin."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.ranking.interleaving import Draft, team_draft
from rankstream.ranking.policy import generator


def by_coins(
    rankings: Sequence[list[int]], n: int, coins: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The draft as the paper writes it: who leads a round picks first, then the other one."""
    chosen: list[int] = []
    team: list[int] = []
    for leader in coins:
        for by in (leader, 1 - leader):
            if len(chosen) < n:
                chosen.append(next(c for c in rankings[by] if c not in chosen))
                team.append(by)
    return tuple(chosen), tuple(team)


def drafted(first: list[int], second: list[int], n: int, request_id: str) -> Draft:
    rng = generator("s", request_id)
    return team_draft(np.array(first, np.intp), np.array(second, np.intp), n, rng)


RANKINGS = st.permutations(range(7)).map(lambda order: list(order[:5]))


@given(RANKINGS, RANKINGS, st.integers(0, 6), st.text(max_size=4))
def test_slates_teams_and_propensities_are_those_of_the_coins(
    first: list[int], second: list[int], n: int, request_id: str
) -> None:
    found = drafted(first, second, n, request_id)

    slots = min(n, 5)
    outcomes = [
        by_coins((first, second), slots, coins)
        for coins in itertools.product((0, 1), repeat=(slots + 1) // 2)
    ]
    chosen = tuple(found.chosen.tolist())
    assert (chosen, tuple(found.team.tolist())) in outcomes
    for slot in range(slots):
        above = [items for items, _ in outcomes if items[:slot] == chosen[:slot]]
        here = [items for items in above if items[slot] == chosen[slot]]
        assert found.propensity[slot] == pytest.approx(len(here) / len(above))


def test_every_outcome_of_the_coins_comes_up_as_often_as_the_others() -> None:
    first, second, draws = [0, 1, 2, 3], [3, 2, 1, 0], 8_000
    seen: defaultdict[tuple[int, ...], int] = defaultdict(int)

    for draw in range(draws):
        seen[tuple(drafted(first, second, 4, f"r{draw}").team.tolist())] += 1

    assert len(seen) == 4
    for count in seen.values():
        assert abs(count / draws - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / draws)


def test_equal_rankings_are_shown_as_they_are_and_teams_are_equal() -> None:
    found = drafted([4, 2, 0, 1], [4, 2, 0, 1], 4, "r")

    assert found.chosen.tolist() == [4, 2, 0, 1]
    assert found.propensity.tolist() == [1.0] * 4
    assert sorted(found.team.tolist()) == [0, 0, 1, 1]


def test_neither_ranker_gains_where_clicks_do_not_depend_on_the_item() -> None:
    # A click on slot 0 alone: each team gets it half of the time, however rankings overlap.
    teams = [int(drafted([0, 1, 2], [0, 2, 1], 3, f"r{i}").team[0]) for i in range(4_000)]

    assert abs(np.mean(teams) - 0.5) < 4.5 * 0.5 / np.sqrt(4_000)
