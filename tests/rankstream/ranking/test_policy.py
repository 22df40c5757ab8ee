"""Epsilon-greedy slates: what is logged as propensity is the probability of what was done."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.ranking.policy import Slate, epsilon_greedy, generator


def conditional(order: list[int], above: list[int], item: int, epsilon: float) -> float:
    """P(item | above) by its definition, one slot at a time."""
    remaining = [candidate for candidate in order if candidate not in above]
    best = 1.0 if item == remaining[0] else 0.0
    return epsilon / len(remaining) + (1 - epsilon) * best


def slate_of(order: list[int], n: int, epsilon: float, request_id: str) -> Slate:
    return epsilon_greedy(np.array(order, np.intp), n, epsilon, generator("s", request_id))


@given(st.permutations(range(6)), st.integers(0, 8), st.floats(0, 1), st.text(max_size=5))
def test_propensity_is_the_closed_form_at_every_slot(
    order: list[int], n: int, epsilon: float, request_id: str
) -> None:
    slate = slate_of(order, n, epsilon, request_id)

    chosen = slate.chosen.tolist()
    assert len(chosen) == len(set(chosen)) == min(n, len(order))
    for slot, item in enumerate(chosen):
        expected = conditional(order, chosen[:slot], item, epsilon)
        assert slate.propensity[slot] == pytest.approx(expected, abs=1e-12)
        assert 0 < slate.propensity[slot] <= 1 + 1e-12


def test_slates_appear_as_often_as_their_propensities_multiply_to() -> None:
    order, n, epsilon, draws = [2, 0, 1], 2, 0.4, 20_000
    seen = dict.fromkeys(itertools.permutations(order, n), 0)

    for draw in range(draws):
        seen[tuple(slate_of(order, n, epsilon, f"seed-{draw}").chosen.tolist())] += 1

    for (first, second), count in seen.items():
        p = conditional(order, [], first, epsilon) * conditional(order, [first], second, epsilon)
        standard_error = np.sqrt(p * (1 - p) / draws)
        assert abs(count / draws - p) < 4.5 * standard_error, (first, second)


def test_without_exploration_the_order_stands_and_is_certain() -> None:
    slate = slate_of([3, 1, 2, 0], 3, 0.0, "r")

    assert slate.chosen.tolist() == [3, 1, 2]
    assert slate.propensity.tolist() == [1.0, 1.0, 1.0]
    assert not slate.explored.any()


def test_a_request_gets_the_same_slate_whenever_it_is_answered() -> None:
    order = list(range(50))

    first, again = slate_of(order, 20, 0.5, "r-1"), slate_of(order, 20, 0.5, "r-1")
    other = slate_of(order, 20, 0.5, "r-2")

    assert first.chosen.tolist() == again.chosen.tolist()
    assert first.propensity.tolist() == again.propensity.tolist()
    assert first.chosen.tolist() != other.chosen.tolist()


def test_the_generator_is_pinned_so_that_old_answers_can_be_reproduced() -> None:
    draws = generator("policy-1", "request-1").random(3)

    assert draws.tolist() == PINNED


def test_salt_and_request_do_not_run_into_each_other() -> None:
    assert generator("a", "bc").random() != generator("ab", "c").random()


PINNED = [0.408721075292412, 0.3455373585951217, 0.7425746214832407]
