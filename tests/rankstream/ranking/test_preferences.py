"""Business rules, freshness and duplicates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.policy import Freshness, Match, Policy, Rule
from rankstream.ranking.decide import Step
from rankstream.ranking.preferences import freshness, places_of
from tests.rankstream.ranking.builders import NOW_MS, decided, shown, some_facts

NEWS = Match(categories=("news",))
YEAR_NOW = 1970 + NOW_MS / (365.2425 * 86_400_000)


def test_a_boost_lifts_and_a_bury_sinks_by_their_amounts() -> None:
    facts = some_facts([2.0, 1.0, 0.0], category=[0, 2, 1])

    boosted = Policy(rules=(Rule(action="boost", match=NEWS, amount=1.5),), epsilon=0.0)
    too_weak = Policy(rules=(Rule(action="boost", match=NEWS, amount=0.9),), epsilon=0.0)
    buried = Policy(rules=(Rule(action="bury", match=NEWS, amount=1.5),), epsilon=0.0)

    assert shown(boosted, facts) == [1, 0, 2]
    assert shown(too_weak, facts) == [0, 1, 2]
    assert shown(buried, facts) == [0, 2, 1]


def test_what_is_excluded_is_neither_shown_nor_explored() -> None:
    facts = some_facts([2.0, 1.0, 0.0], category=[0, 2, 1])
    policy = Policy(rules=(Rule(action="exclude", match=NEWS),), epsilon=1.0)

    decision = decided(policy, facts)

    assert sorted(decision.slate.chosen.tolist()) == [0, 2]
    assert decision.slate.propensity.tolist() == [0.5, 1.0]
    assert decision.steps[0].removed == 1


@pytest.mark.parametrize(
    ("match", "out"),
    [
        (Match(item_ids=("i1",)), [1]),
        (Match(attribute="year", at_least=2000.0), [0]),
        (Match(attribute="year", below=2000.0), [1]),
        (Match(attribute="year", at_least=1980.0, below=1991.0), [1]),
        (Match(impressions_below=6), [0, 1]),
        (Match(categories=("drama",), impressions_below=6), [0]),
    ],
)
def test_a_match_needs_all_that_it_states(match: Match, out: list[int]) -> None:
    facts = some_facts(
        [3.0, 2.0, 1.0],
        category=[0, 1, 0],
        year=[2000, 1990, np.nan],
        impressions=[5, 0, 6],
    )

    policy = Policy(rules=(Rule(action="exclude", match=match),), epsilon=0.0)

    assert shown(policy, facts) == [i for i in range(3) if i not in out]


@pytest.mark.parametrize(
    ("age", "added"), [(0.0, 1.0), (1.0, 0.5), (2.0, 0.25), (-5.0, 1.0), (np.nan, 0.0)]
)
def test_freshness_halves_with_each_half_life(age: float, added: float) -> None:
    facts = some_facts([0.0], year=[YEAR_NOW - age])
    step = Freshness(attribute="year", unit="year", half_life_days=365.2425, weight=1.0)

    assert freshness(step, facts, NOW_MS)[0] == pytest.approx(added, abs=1e-3)


def test_an_age_may_be_stated_in_seconds() -> None:
    facts = some_facts([0.0, 0.1], year=[NOW_MS / 1000, 0.0])
    step = Freshness(attribute="year", unit="epoch_s", half_life_days=1.0, weight=0.2)

    assert shown(Policy(freshness=step, epsilon=0.0), facts) == [0, 1]


def test_of_equal_items_the_most_preferred_stays() -> None:
    facts = some_facts([1.0, 3.0, 2.0, 0.0, -1.0], year=[7, 7, 8, np.nan, np.nan])

    decision = decided(Policy(dedupe="year", epsilon=0.0), facts)

    assert decision.slate.chosen.tolist() == [1, 2, 3, 4]
    assert decision.steps == (Step("dedupe", (2, 3), (3, 4), (2, 3), 1),)


def test_an_item_that_comes_twice_is_shown_once() -> None:
    facts = some_facts([1.0, 2.0])
    twice = type(facts)(**{**vars(facts), "item_ids": ["a", "a"]})

    assert shown(Policy(dedupe="item", epsilon=0.0), twice) == [1]


def test_steps_say_what_they_moved_and_from_where() -> None:
    facts = some_facts([3.0, 2.0, 1.0], category=[0, 0, 2])
    policy = Policy(rules=(Rule(action="boost", match=NEWS, amount=1.5),), epsilon=0.0)

    decision = decided(policy, facts, n=2)

    assert decision.slate.chosen.tolist() == [0, 2]
    assert decision.place.tolist() == [0, 2]
    assert decision.steps == (Step("rules", (1,), (2,), (1,), 0),)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), max_size=9), st.data())
def test_places_are_those_of_a_stable_sort(preference: list[float], data: st.DataObject) -> None:
    values = np.array(preference)
    asked = data.draw(st.lists(st.integers(0, len(preference) - 1))) if preference else []
    order = sorted(range(len(preference)), key=lambda i: (-preference[i], i))

    found = places_of(values, np.array(asked, np.intp))

    assert found.tolist() == [order.index(i) for i in asked]
