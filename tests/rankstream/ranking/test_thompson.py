"""Thompson sampling of cold items: posteriors, and simulated propensities against closed forms."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from rankstream.contracts.policy import Diversity, Floor, Match, Pin, Policy, Thompson
from rankstream.ranking.decide import propensities
from rankstream.ranking.facts import Facts
from rankstream.ranking.thompson import cold_items
from tests.rankstream.ranking.builders import decided, some_facts

STEP = Thompson(impressions_below=50, strength=10.0, draws=4_000)


def two_cold_and_a_warm(*, by_logit: bool = True) -> Facts:
    return some_facts(
        [-1.0, -1.1, -1.2],
        category=[0, 1, 2],
        impressions=[500, 10, 0],
        clicks=[200, 3, 0],
        by_logit=by_logit,
    )


def posteriors(facts: Facts) -> list[tuple[float, float]]:
    """Beta parameters of candidates 1 and 2 by their definition."""
    clicks, shown = facts.category_clicks, facts.category_impressions
    overall = (clicks.sum() + 1) / (shown.sum() + 10)
    out = []
    for item in (1, 2):
        c = facts.category[item]
        mean = (clicks[c] + 100 * overall) / (shown[c] + 100)
        k, n = facts.clicks[item], facts.impressions[item]
        out.append((10 * mean + k, 10 * (1 - mean) + n - k))
    return out


def test_a_posterior_is_the_categorys_prior_and_the_items_own_clicks() -> None:
    facts = two_cold_and_a_warm()

    cold = cold_items(STEP, facts, facts.preference.astype(np.float64), 3)

    assert cold.places.tolist() == [1, 2]
    assert np.stack([cold.a, cold.b], axis=1) == pytest.approx(np.array(posteriors(facts)))


def first_slot(facts: Facts) -> list[float]:
    """P(each candidate has the largest rate), by integration; the warm one's is known."""
    f, g = (stats.beta(a, b) for a, b in posteriors(facts))
    known = float(facts.pctr[0])
    warm = f.cdf(known) * g.cdf(known)
    of_f = integrate.quad(lambda x: f.pdf(x) * g.cdf(x), known, 1)[0]
    of_g = integrate.quad(lambda x: g.pdf(x) * f.cdf(x), known, 1)[0]
    return [float(warm), of_f, of_g]


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_simulated_propensities_agree_with_integrals(epsilon: float) -> None:
    facts = two_cold_and_a_warm()
    policy = Policy(thompson=STEP, epsilon=epsilon)
    exact = first_slot(facts)
    seen = set()

    for request in range(60):
        decision = decided(policy, facts, 1, f"r{request}")
        found = propensities(policy, decision, salt="s", request_id=f"r{request}")

        assert found is not None
        p, error = found
        item = int(decision.slate.chosen[0])
        seen.add(item)
        expected = epsilon / 3 + (1 - epsilon) * exact[item]
        assert abs(p[0] - expected) < 4.5 * max(error[0], 1e-3), (item, p[0], expected)

    assert seen == {0, 1, 2}
    assert sum(exact) == pytest.approx(1.0)


FEW_DRAWS = STEP.model_copy(update={"draws": 400})
CONSTRAINED = {
    "diverse": {"diversity": Diversity(method="mmr", trade_off=0.8)},
    "determinantal": {"diversity": Diversity(method="dpp", trade_off=0.7)},
    "shallow": {"diversity": Diversity(method="mmr", trade_off=0.8, depth=2)},
    "capped": {"cap": 1},
    "floored": {"floors": (Floor(slots=1, match=Match(item_ids=("i1", "i3"))),)},
    "pinned": {"pins": (Pin(slot=0, match=Match(item_ids=("i3",))),)},
}


@pytest.mark.parametrize("constraint", CONSTRAINED.values(), ids=CONSTRAINED)
def test_a_slate_appears_as_often_as_its_propensities_multiply_to(
    constraint: dict[str, Any],
) -> None:
    facts = some_facts(
        [-1.0, -1.1, -1.2, -1.3],
        category=[0, 1, 2, 1],
        impressions=[500, 10, 0, 500],
        clicks=[200, 3, 0, 100],
    )
    policy, requests, n = Policy(thompson=FEW_DRAWS, epsilon=0.2, **constraint), 2_500, 2
    seen: Counter[tuple[int, ...]] = Counter()
    logged: defaultdict[tuple[int, ...], list[float]] = defaultdict(list)

    for request in range(requests):
        decision = decided(policy, facts, n, f"r{request}")
        order = tuple(decision.slate.chosen.tolist())
        seen[order] += 1
        if len(logged[order]) < 10:
            found = propensities(policy, decision, salt="s", request_id=f"r{request}")
            assert found is not None
            logged[order].append(float(np.prod(found[0])))

    estimates = {order: float(np.mean(values)) for order, values in logged.items()}
    assert sum(estimates.values()) == pytest.approx(1.0, abs=0.06)
    for order, p in estimates.items():
        assert abs(seen[order] / requests - p) < 4.5 * np.sqrt(p / requests) + 0.012, order


def test_inverse_propensities_of_logged_slates_give_the_value_of_another_policy() -> None:
    # Clicks follow the item alone; the target always shows candidate 1 on top.
    facts, click = two_cold_and_a_warm(), np.array([0.3, 0.6, 0.1])
    step = STEP.model_copy(update={"draws": 200})
    policy = Policy(thompson=step, epsilon=0.3)
    rng = np.random.default_rng(7)
    terms = []

    for request in range(2_500):
        decision = decided(policy, facts, 2, f"r{request}")
        item = int(decision.slate.chosen[0])
        weight = 0.0
        if item == 1:
            found = propensities(policy, decision, salt="s", request_id=f"r{request}")
            assert found is not None
            weight = 1 / found[0][0]
        terms.append(weight * (rng.random() < click[item]))

    standard_error = np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - click[1]) < 4 * standard_error


def test_propensities_are_exact_and_not_simulated_where_nothing_is_drawn() -> None:
    warm = some_facts([2.0, 1.0], impressions=[500, 500])
    policy = Policy(thompson=STEP)

    assert propensities(policy, decided(policy, warm), salt="s", request_id="r") is None


def test_a_pinned_slot_stays_certain_beside_drawn_ones() -> None:
    facts = two_cold_and_a_warm()
    policy = Policy(thompson=STEP, pins=(Pin(slot=1, match=Match(item_ids=("i0",))),), epsilon=0.1)
    decision = decided(policy, facts, 3)

    found = propensities(policy, decision, salt="s", request_id="r")

    assert found is not None
    p, error = found
    assert decision.slate.chosen[1] == 0
    assert (p[1], error[1]) == (1.0, 0.0)
    assert p[2] == pytest.approx(1.0, abs=1e-3)  # nobody else is left
    assert 0 < p[0] < 1


def test_in_a_utility_the_drawn_rate_takes_the_place_of_the_models() -> None:
    facts = two_cold_and_a_warm(by_logit=False)
    preference = facts.preference.astype(np.float64)

    cold = cold_items(STEP, facts, preference, 3)

    assert cold.scale is not None
    model_rates = facts.pctr[[1, 2]].astype(np.float64)
    assert cold.scale * model_rates + cold.offset == pytest.approx(preference[[1, 2]])


def test_drawn_rates_are_reproduced_from_the_request() -> None:
    facts = two_cold_and_a_warm()
    policy = Policy(thompson=STEP, epsilon=0.1)

    first, again = decided(policy, facts, 3, "r"), decided(policy, facts, 3, "r")

    assert first.slate.chosen.tolist() == again.slate.chosen.tolist()
    one = propensities(policy, first, salt="s", request_id="r")
    two = propensities(policy, again, salt="s", request_id="r")
    assert one is not None
    assert two is not None
    assert [x.tolist() for x in one] == [x.tolist() for x in two]
