"""A variant with two models: one slate, each item on the team of the model that picked it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rankstream.contracts.codec import decode_experiment, encode_experiment
from rankstream.contracts.experiment import Variant
from rankstream.contracts.policy import Diversity, Floor, Match, Policy, Rule, Thompson
from rankstream.pb.events_pb2 import ServedSlate
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import Rig, an_experiment, recommend
from tests.services.ranker.fakes import item_row

VARIANTS = (
    Variant(name="control", weight_bp=1, model="champion"),
    Variant(name="both", weight_bp=9_999, model="champion", interleave_with="challenger"),
)
DIVERSE = Policy(
    rules=(Rule(action="exclude", match=Match(categories=("news",))),),
    diversity=Diversity(method="mmr", trade_off=0.6),
    epsilon=0.5,
)


async def both(settings: RankerSettings, **policies: Policy) -> Rig:
    """A champion that likes many impressions, a challenger that likes few."""
    rig = Rig(settings, policies=policies)
    await rig.serve_model("champion", "m1")
    await rig.serve_model("challenger", "m2", sign=-1.0)
    await rig.define(variants=VARIANTS)
    return rig


async def test_both_models_rank_and_the_record_says_who_picked_what(
    settings: RankerSettings,
) -> None:
    rig = await both(settings)

    reply = await recommend(rig, n=4, request_id="r1")

    (slate,) = await rig.slates()
    between = slate.interleaving
    assert (slate.model_id, between.model_id, between.model_sha256) == ("m1", "m2", "m2")
    assert sorted(slate.item_id) == ["i2", "i3", "i30", "i31"]
    picked = dict(zip(slate.item_id, between.team, strict=True))
    assert picked == {"i31": 0, "i30": 0, "i2": 1, "i3": 1}
    assert list(between.logit) == [-logit for logit in slate.logit]
    assert list(slate.propensity) == [0.5, 1.0, 0.5, 1.0]
    assert [step.name for step in slate.step] == ["interleaving"]
    assert (reply.variant, reply.model_id) == ("both", "m1")
    (exposure,) = await rig.exposures()
    assert exposure.variant == "both"


async def test_an_explanation_names_both_models_and_each_team(settings: RankerSettings) -> None:
    rig = await both(settings)
    await recommend(rig, n=4, request_id="r1")

    told = await rig.ranker.explain("r1", transport="grpc")

    assert told.other_model_id == "m2"
    assert sorted(item.team for item in told.items) == [0, 0, 1, 1]


async def test_without_the_second_model_the_answer_is_outside_the_experiment(
    settings: RankerSettings,
) -> None:
    rig = Rig(settings)
    await rig.serve_model("champion", "m1")
    await rig.define(variants=VARIANTS)

    reply = await recommend(rig)

    assert list(reply.degraded) == ["variant_model_missing"]
    assert await rig.exposures() == []


async def test_rules_hold_for_both_and_nothing_is_explored(settings: RankerSettings) -> None:
    rig = await both(settings, default=DIVERSE)
    for n in (31, 2):
        rig.store.stored_items[f"i{n}"] = item_row(n, "news")

    for request in range(10):
        reply = await recommend(rig, n=4, request_id=f"r{request}")
        assert sorted(reply.item_id) == ["i29", "i3", "i30", "i4"]


COLD = Policy(
    thompson=Thompson(), floors=(Floor(slots=1, match=Match(impressions_below=9)),), cap=5
)


@pytest.mark.parametrize(
    "policy", [Policy(epsilon=0.0), DIVERSE, COLD], ids=["plain", "diverse", "cold"]
)
async def test_a_draft_comes_out_again(settings: RankerSettings, policy: Policy) -> None:
    rig = await both(settings, **({} if policy.is_plain else {"default": policy}))
    for request in range(6):
        await recommend(rig, n=7, request_id=f"r{request}")
        await rig.answers.drain(1.0)
        reply = await rig.ranker.reproduce(f"r{request}", b"", transport="grpc")
        assert list(reply.differences) == []
        assert reply.items > 4


def other_team(slate: ServedSlate) -> None:
    slate.interleaving.team[0] = 1 - slate.interleaving.team[0]


def other_logit(slate: ServedSlate) -> None:
    slate.interleaving.logit[0] += 1.0


def other_ranking(slate: ServedSlate) -> None:
    second = slate.interleaving.second
    second[0], second[1] = second[1], second[0]


def no_facts(slate: ServedSlate) -> None:
    slate.interleaving.ClearField("facts")


@pytest.mark.parametrize(
    ("change", "policy", "code"),
    [
        (other_team, "plain", "slate_differs"),
        (other_logit, "plain", "scores_differ"),
        (other_ranking, "plain", "preferences_differ"),
        (other_ranking, "diverse", "slate_differs"),
        (no_facts, "diverse", "candidates_not_kept"),
    ],
)
async def test_what_differs_of_a_draft_is_named(
    settings: RankerSettings, change: Callable[[ServedSlate], None], policy: str, code: str
) -> None:
    rig = await both(settings, **({} if policy == "plain" else {"default": DIVERSE}))
    await recommend(rig, n=6, request_id="r1")
    (slate,) = await rig.slates()

    change(slate)
    reply = await rig.ranker.reproduce("r1", slate.SerializeToString(), transport="grpc")

    assert code in [difference.code for difference in reply.differences]


def test_a_definition_keeps_its_policy_and_its_second_model() -> None:
    experiment = an_experiment(
        variants=(
            Variant(name="control", weight_bp=5_000, model="champion", policy="few"),
            Variant(name="both", weight_bp=5_000, model="champion", interleave_with="challenger"),
        )
    )

    assert decode_experiment(encode_experiment(experiment)) == experiment
