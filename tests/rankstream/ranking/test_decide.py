"""Whatever a policy combines: a slate of different items, its constraints, usable propensities."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.policy import (
    Diversity,
    Floor,
    Freshness,
    Likeness,
    Match,
    Pin,
    Policy,
    Rule,
    Thompson,
)
from rankstream.ranking.decide import propensities
from tests.rankstream.ranking.builders import CATEGORIES, decided, random_facts

MATCHES = st.one_of(
    st.sampled_from(CATEGORIES).map(lambda name: Match(categories=(name,))),
    st.integers(1, 90).map(lambda count: Match(impressions_below=count)),
    st.floats(1990, 2026).map(lambda year: Match(attribute="year", at_least=year)),
    st.integers(0, 14).map(lambda i: Match(item_ids=(f"i{i}",))),
)
ACTIONS = st.sampled_from(["boost", "bury", "exclude"])
RULES = st.builds(Rule, action=ACTIONS, match=MATCHES, amount=st.floats(0.1, 3))
FLOORS = st.builds(Floor, slots=st.integers(1, 4), match=MATCHES)
FRESHNESS = Freshness(attribute="year", unit="year", half_life_days=900.0, weight=1.0)
DIVERSITY = st.builds(
    Diversity,
    method=st.sampled_from(["mmr", "dpp"]),
    trade_off=st.floats(0.05, 1.0),
    category=st.just(0.5),
    attributes=st.sampled_from([(), (Likeness(attribute="year", weight=0.5, scale=3.0),)]),
    depth=st.sampled_from([1, 4, 100]),
)
POLICIES = st.builds(
    Policy,
    rules=st.lists(RULES, max_size=2).map(tuple),
    freshness=st.sampled_from([None, FRESHNESS]),
    dedupe=st.sampled_from(["", "item", "year"]),
    pins=st.dictionaries(st.integers(0, 9), MATCHES, max_size=3).map(
        lambda pins: tuple(Pin(slot=slot, match=match) for slot, match in pins.items())
    ),
    floors=st.lists(st.builds(Floor, slots=st.integers(1, 4), match=MATCHES), max_size=2).map(
        tuple
    ),
    cap=st.integers(0, 4),
    thompson=st.sampled_from([None, Thompson(draws=50), Thompson(candidates_max=2, draws=50)]),
    diversity=st.one_of(st.none(), DIVERSITY),
    epsilon=st.sampled_from([0.0, 0.3, 1.0]),
)


@given(POLICIES, st.integers(0, 15), st.integers(0, 12), st.integers(0, 99))
def test_a_slate_holds_what_its_policy_says(policy: Policy, m: int, n: int, seed: int) -> None:
    facts = random_facts(m, seed)

    choice = decided(policy, facts, n, f"r{seed}")

    chosen = choice.slate.chosen
    kept = np.ones(m, bool)
    for rule in policy.rules:
        if rule.action == "exclude":
            kept &= ~facts.matching(rule.match)
    assert len(set(chosen.tolist())) == len(chosen) <= n
    assert kept[chosen].all()
    if policy.cap and not policy.pins:
        assert np.bincount(facts.category[chosen], minlength=1).max(initial=0) <= policy.cap
    if not policy.cap and not policy.dedupe:
        assert len(chosen) == min(n, np.count_nonzero(kept))
    found = propensities(policy, choice, salt="s", request_id=f"r{seed}")
    p = choice.slate.propensity if found is None else found[0]
    assert len(p) == len(chosen)
    assert ((p > 0) & (p <= 1 + 1e-9)).all()
    for step in choice.steps:
        assert all(0 <= slot < len(chosen) for slot in step.slots)
        assert len(step.slots) == len(step.before) == len(step.after)
        assert all(0 <= place < m for place in (*step.before, *step.after))


@given(POLICIES, st.integers(0, 99))
def test_the_same_request_gets_the_same_slate(policy: Policy, seed: int) -> None:
    facts = random_facts(12, seed)

    first, again = decided(policy, facts, 6, "r"), decided(policy, facts, 6, "r")

    assert first.slate.chosen.tolist() == again.slate.chosen.tolist()
    assert first.slate.propensity.tolist() == again.slate.propensity.tolist()
    assert first.steps == again.steps


@given(POLICIES)
def test_a_policy_without_draws_is_certain(policy: Policy) -> None:
    choice = decided(policy.settled, random_facts(12, 1), 6, "r")

    assert choice.slate.propensity.tolist() == [1.0] * len(choice.slate.chosen)
    assert not {"thompson", "exploration"} & {step.name for step in choice.steps}
