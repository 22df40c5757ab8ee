"""Policies behind the ranker: which one answers, what its record holds, what is told later."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.experiment import Variant
from rankstream.contracts.policy import Diversity, Freshness, Match, Pin, Policy, Rule, Thompson
from rankstream.errors import InvalidSettings
from rankstream.ranking.facts import Facts
from services.ranker.policies import Policies
from services.ranker.policy_facts import decode_facts, encode_facts
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import Rig, recommend
from tests.services.ranker.fakes import ITEM_IDS, item_row

BURY_DRAMA = Policy(
    rules=(Rule(action="bury", match=Match(categories=("drama",)), amount=9.0),), epsilon=0.0
)
COLD = Policy(thompson=Thompson(impressions_below=60, draws=50), epsilon=0.0)


async def ready(settings: RankerSettings, **policies: Policy) -> Rig:
    rig = Rig(settings, policies=policies)
    await rig.serve_model("champion", "m1")
    return rig


async def test_the_default_policy_of_the_file_decides_where_none_is_named(
    settings: RankerSettings,
) -> None:
    rig = await ready(settings, default=BURY_DRAMA)
    rig.store.stored_items["i5"] = item_row(5, "comedy")

    reply = await recommend(rig, n=2)

    assert list(reply.item_id) == ["i5", "i31"]


async def test_the_record_tells_places_steps_and_configuration(settings: RankerSettings) -> None:
    rig = await ready(settings, default=BURY_DRAMA)
    rig.store.stored_items["i5"] = item_row(5, "comedy")

    await recommend(rig, n=2)

    (slate,) = await rig.slates()
    assert (slate.policy, slate.policy_hash) == ("default:0:policy-1", BURY_DRAMA.sha256)
    assert (slate.policy_salt, slate.slots) == ("policy-1", 2)
    assert (slate.model_sha256, slate.data_version) == ("m1", "data of m1")
    assert list(slate.place) == [26, 0]
    assert list(slate.candidate) == [3, 29]
    (step,) = slate.step
    assert (step.name, list(step.slot)) == ("rules", [0, 1])
    assert (list(step.before), list(step.after)) == ([26, 0], [0, 1])
    assert Policy.model_validate_json(slate.facts.config) == BURY_DRAMA


async def test_epsilon_greedy_keeps_nothing_of_candidates_that_are_not_shown(rig: Rig) -> None:
    await recommend(rig, n=2)

    (slate,) = await rig.slates()
    assert not slate.HasField("facts")
    assert list(slate.place) == [0, 1]


async def test_candidates_are_kept_only_if_the_settings_say_so(settings: RankerSettings) -> None:
    rig = await ready(settings.model_copy(update={"log_candidates": False}), default=BURY_DRAMA)

    await recommend(rig)

    (slate,) = await rig.slates()
    assert not slate.HasField("facts")


async def test_a_variant_names_its_policy(settings: RankerSettings) -> None:
    rig = await ready(settings, buried=BURY_DRAMA)
    rig.store.stored_items["i5"] = item_row(5, "comedy")
    variants = (
        Variant(name="control", weight_bp=1, model="champion"),
        Variant(name="new", weight_bp=9_999, model="champion", policy="buried"),
    )
    await rig.define(variants=variants)

    reply = await recommend(rig, n=1)
    control = await recommend(rig, n=1, variant_overrides={"exp-1": "control"})

    assert (reply.variant, list(reply.item_id)) == ("new", ["i5"])
    assert (control.variant, list(control.item_id)) == ("control", ["i31"])


async def test_a_variant_without_its_policy_is_outside_the_experiment(rig: Rig) -> None:
    variants = (
        Variant(name="control", weight_bp=1, model="champion"),
        Variant(name="new", weight_bp=9_999, model="champion", policy="nowhere"),
    )
    await rig.define(variants=variants)

    reply = await recommend(rig)

    assert list(reply.degraded) == ["variant_policy_missing"]
    assert await rig.exposures() == []


async def test_simulated_propensities_come_with_the_record_and_not_with_the_answer(
    settings: RankerSettings,
) -> None:
    rig = await ready(settings, default=COLD)

    reply = await recommend(rig, n=3, request_id="r1")

    (slate,) = await rig.slates()
    assert list(reply.propensity) == [0.0] * 3
    assert all(0 < p < 1 for p in slate.propensity)
    assert all(0 < error < 0.1 for error in slate.propensity_error)
    assert slate.propensity_draws == 50
    assert list(slate.item_id) == list(reply.item_id)
    told = await rig.ranker.explain("r1", transport="grpc")
    assert [item.propensity for item in told.items] == list(slate.propensity)
    assert [item.propensity_error for item in told.items] == list(slate.propensity_error)
    assert "thompson" in {step.name for step in told.steps}


async def test_an_answer_asked_for_at_once_is_found_complete(
    settings: RankerSettings,
) -> None:
    rig = await ready(settings, default=COLD)

    first = await recommend(rig, n=3, request_id="r1")
    told = await rig.ranker.explain("r1", transport="grpc")
    again = await recommend(rig, n=3, request_id="r1")

    assert list(first.item_id) == list(again.item_id)
    assert all(item.propensity > 0 for item in told.items)
    assert len(await rig.slates()) == 1


async def test_stopping_waits_for_simulations(settings: RankerSettings) -> None:
    rig = await ready(settings, default=COLD)
    await recommend(rig)

    await rig.answers.drain(5.0)

    assert [topic for topic, _, _ in rig.log.records] == ["served"]


def test_policies_come_from_a_file(settings: RankerSettings, tmp_path: Path) -> None:
    file = tmp_path / "policies.json"
    file.write_text(json.dumps({"few": {"cap": 2}}))
    found = Policies.load(settings.model_copy(update={"policies": str(file)}))

    few = found.named("few")
    assert few is not None
    assert few.policy == Policy(cap=2)
    assert found.default.label == "epsilon_greedy:0:policy-1"
    assert found.of_hash(few.policy.sha256) == few.policy
    assert found.named("many") is None
    assert found.of_hash("0") is None


def test_a_missing_file_and_an_unknown_attribute_are_named(settings: RankerSettings) -> None:
    with pytest.raises(InvalidSettings, match=r"RANKER_POLICIES is '/no\.json'"):
        Policies.load(settings.model_copy(update={"policies": "/no.json"}))
    with pytest.raises(InvalidSettings, match="policy p reads colour, which is no attribute"):
        Policies({"p": Policy(dedupe="colour")}, epsilon=0.0, salt="s")


EVERYTHING = Policy(
    rules=(Rule(action="exclude", match=Match(item_ids=("i1",))),),
    freshness=Freshness(attribute="year", unit="year", half_life_days=100.0, weight=1.0),
    pins=(Pin(slot=0, match=Match(impressions_below=3)),),
    diversity=Diversity(method="mmr", trade_off=0.5),
    thompson=Thompson(),
    dedupe="price",
)


@given(st.integers(0, 40), st.integers(0, 99), st.booleans(), st.sampled_from([EVERYTHING, COLD]))
def test_facts_are_kept_to_the_bit(m: int, seed: int, by_logit: bool, policy: Policy) -> None:
    rng = np.random.default_rng(seed)
    columns = len(policy.attributes)
    facts = Facts(
        preference=rng.normal(size=m).astype(np.float32),
        pctr=rng.uniform(size=m).astype(np.float32),
        by_logit=by_logit or m == 0,
        category=rng.integers(0, 2, m),
        categories=["", "drama"],
        attribute_names=policy.attributes,
        attributes=rng.normal(size=(m if columns else 0, columns)).astype(np.float32),
        impressions=rng.integers(0, 2**40, m),
        clicks=rng.integers(0, 9, m),
        category_impressions=rng.integers(0, 9, 2),
        category_clicks=rng.integers(0, 9, 2),
        item_ids=ITEM_IDS[:m] if policy.names_items else [],
    )

    found = decode_facts(encode_facts(facts, policy), policy)

    for name, column in vars(facts).items():
        if name == "pctr" and facts.by_logit:
            continue
        np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
