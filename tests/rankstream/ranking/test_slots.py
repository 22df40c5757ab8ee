"""Slots under constraints, diversity and exploration, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.policy import Diversity, Floor, Likeness, Match, Pin, Policy
from rankstream.ranking.decide import Step, plain
from rankstream.ranking.diversity import RIDGE
from rankstream.ranking.facts import Facts
from rankstream.ranking.policy import generator
from tests.rankstream.ranking.builders import CATEGORIES, decided, random_facts, shown, some_facts

NEWS = Match(categories=("news",))
NEW = Match(impressions_below=40)
OLD = Match(attribute="year", below=2005.0)


def similarity(step: Diversity, facts: Facts, i: int, j: int) -> float:
    total = step.category * float(facts.category[i] == facts.category[j])
    for likeness in step.attributes:
        a, b = facts.attribute(likeness.attribute)[[i, j]]
        total += 0.0 if np.isnan(a - b) else likeness.weight * np.exp(-abs(a - b) / likeness.scale)
    return total


def gain(step: Diversity | None, facts: Facts, above: list[int], i: int) -> float:
    preference = float(facts.preference[i])
    if step is None:
        return preference
    if step.method == "mmr":
        novelty = -max([0.0, *(similarity(step, facts, i, j) for j in above)])
    else:
        novelty = np.log(max(volume(step, facts, [*above, i]) / volume(step, facts, above), RIDGE))
    return step.trade_off * preference + (1 - step.trade_off) * novelty


def volume(step: Diversity, facts: Facts, items: list[int]) -> float:
    """Determinant of the similarities of some items."""
    kernel = [
        [1.0 if i == j else (1 - RIDGE) * similarity(step, facts, i, j) for j in items]
        for i in items
    ]
    return float(np.linalg.det(np.array(kernel))) if items else 1.0


def allowed(policy: Policy, facts: Facts, above: list[int], n: int) -> list[int]:
    """Whom a slot may take under caps and floors, given those above."""
    room = [policy.caps.get(name, policy.cap or n) for name in CATEGORIES]
    for item in above:
        room[facts.category[item]] -= 1
    free = [
        i for i in range(len(facts.preference)) if i not in above and room[facts.category[i]] > 0
    ]
    members = [facts.matching(floor.match) for floor in policy.floors]
    needs = [
        floor.slots - sum(bool(mask[i]) for i in above)
        for floor, mask in zip(policy.floors, members, strict=True)
    ]
    if sum(max(0, need) for need in needs) >= n - len(above):
        wanted = [
            i for i in free if any(m[i] for m, need in zip(members, needs, strict=True) if need > 0)
        ]
        return wanted or free
    return free


LIKENESS = (Likeness(attribute="year", weight=0.4, scale=5.0),)
DIVERSITIES = (
    None,
    Diversity(method="mmr", trade_off=0.6),
    Diversity(method="mmr", trade_off=0.3, category=0.6, attributes=LIKENESS),
    Diversity(method="dpp", trade_off=0.6, category=0.6, attributes=LIKENESS),
)


@given(
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.lists(st.sampled_from([NEWS, NEW, OLD]), max_size=2, unique=True),
    st.sampled_from(DIVERSITIES),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_every_slot_and_its_propensity_follow_the_definition(
    seed: int, cap: int, floors: list[Match], diversity: Diversity | None, epsilon: float
) -> None:
    facts, n = random_facts(12, seed), 6
    policy = Policy(
        cap=cap,
        caps={"news": 2} if cap else {},
        floors=tuple(Floor(slots=2, match=match) for match in floors),
        diversity=diversity,
        epsilon=epsilon,
    )

    slate = decided(policy, facts, n, f"r{seed}").slate

    chosen = slate.chosen.tolist()
    for slot, item in enumerate(chosen):
        above = chosen[:slot]
        free = allowed(policy, facts, above, n)
        best = max(free, key=lambda i: (gain(diversity, facts, above, i), facts.preference[i]))
        expected = epsilon / len(free) + (1 - epsilon) * (item == best)
        assert item in free
        assert slate.explored[slot] or item == best
        assert slate.propensity[slot] == pytest.approx(expected, abs=1e-12)
    assert len(chosen) == n or not allowed(policy, facts, chosen, n)


@given(st.integers(0, 10_000), st.integers(0, 15), st.floats(0, 1))
def test_with_nothing_to_do_it_is_epsilon_greedy_to_the_bit(
    seed: int, n: int, epsilon: float
) -> None:
    facts = random_facts(12, seed)
    idle = Policy(caps={"opera": 1}, epsilon=epsilon)

    slow = decided(idle, facts, n, "r")
    fast = plain(facts.preference, n, epsilon, generator("s", "r"))

    assert slow.filled is not None
    assert slow.slate.chosen.tolist() == fast.slate.chosen.tolist()
    assert slow.slate.propensity.tolist() == fast.slate.propensity.tolist()
    assert slow.slate.explored.tolist() == fast.slate.explored.tolist()
    assert (slow.place.tolist(), slow.steps) == (fast.place.tolist(), fast.steps)


def test_a_cap_lets_the_next_category_in_and_says_so() -> None:
    facts = some_facts([5, 4, 3, 2, 1], category=[0, 0, 0, 1, 2])

    decision = decided(Policy(cap=2, epsilon=0.0), facts, n=4)

    assert decision.slate.chosen.tolist() == [0, 1, 3, 4]
    assert decision.steps == (Step("caps", (2, 3), (3, 4), (2, 3), 0),)


def test_a_slate_is_shorter_where_caps_leave_too_few() -> None:
    facts = some_facts([5, 4, 3], category=[0, 0, 0])

    assert shown(Policy(cap=1, epsilon=0.0), facts, n=3) == [0]


def test_a_floor_takes_the_last_slots_that_it_needs() -> None:
    facts = some_facts([5, 4, 3, 2, 1], category=[0, 0, 0, 2, 2])
    policy = Policy(floors=(Floor(slots=2, match=NEWS),), epsilon=0.0)

    decision = decided(policy, facts, n=3)

    assert decision.slate.chosen.tolist() == [0, 3, 4]
    assert decision.steps == (Step("floors", (1, 2), (3, 4), (1, 2), 0),)


def test_a_floor_that_nobody_matches_changes_nothing() -> None:
    facts = some_facts([5, 4, 3])

    assert shown(Policy(floors=(Floor(slots=2, match=NEWS),), epsilon=0.0), facts) == [0, 1, 2]


def test_a_pinned_slot_is_certain_and_never_explored() -> None:
    facts = some_facts([5, 4, 3, 2], category=[0, 0, 2, 2])
    policy = Policy(pins=(Pin(slot=0, match=NEWS),), epsilon=1.0)

    for request in range(20):
        slate = decided(policy, facts, 4, f"r{request}").slate
        assert slate.chosen[0] == 2
        assert slate.propensity.tolist() == pytest.approx([1.0, 1 / 3, 1 / 2, 1.0])
        assert slate.explored.tolist() == [False, True, True, True]


def test_a_pin_without_candidate_or_slot_is_none() -> None:
    facts = some_facts([5, 4, 3])
    late = Policy(pins=(Pin(slot=3, match=Match(item_ids=("i2",))),), epsilon=0.0)
    absent = Policy(pins=(Pin(slot=0, match=NEWS),), epsilon=0.0)

    assert shown(late, facts) == shown(absent, facts) == [0, 1, 2]


def test_pins_count_for_floors_and_caps() -> None:
    facts = some_facts([5, 4, 3, 2], category=[0, 0, 2, 2])
    pin = (Pin(slot=2, match=NEWS),)

    floored = Policy(pins=pin, floors=(Floor(slots=1, match=NEWS),), epsilon=0.0)
    capped = Policy(pins=pin, cap=1, epsilon=0.0)

    assert shown(floored, facts, n=3) == [0, 1, 2]
    assert shown(capped, facts, n=3) == [0, 2]  # nobody else is left, so it moves up


def test_diversity_takes_another_category_first() -> None:
    facts = some_facts([1.0, 0.9, 0.8], category=[0, 0, 1])
    policy = Policy(diversity=Diversity(method="mmr", trade_off=0.5), epsilon=0.0)

    decision = decided(policy, facts)

    assert decision.slate.chosen.tolist() == [0, 2, 1]
    assert decision.steps == (Step("diversity", (1,), (2,), (1,), 0),)


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_behind_the_depth_of_diversity_the_order_stands(method: str) -> None:
    facts = some_facts([1.0, 0.9, 0.8, 0.7], category=[0, 0, 0, 1])
    step = Diversity.model_validate({"method": method, "trade_off": 0.1, "depth": 2})

    assert shown(Policy(diversity=step, epsilon=0.0), facts) == [0, 1, 2, 3]
