"""Past answers made again: equal to the last bit, or a named reason why not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankstream.adapters.onnx_model import OnnxModel
from rankstream.contracts.manifest import Utility
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
from rankstream.errors import InvalidRequest, SpecMismatch, UnknownAnswer
from rankstream.pb.events_pb2 import ServedSlate
from rankstream.pb.ranker_pb2 import ReproduceReply
from rankstream.ports import Model, Scores
from rankstream.testing import FakeModel
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, Rig, rank, recommend
from tests.services.ranker.fakes import ITEM_IDS, item_row
from tests.serving_artifacts import write_ranker

NEW = Match(impressions_below=10)
EVERYTHING = Policy(
    rules=(Rule(action="boost", match=Match(categories=("comedy",)), amount=0.5),),
    freshness=Freshness(attribute="year", unit="year", half_life_days=900.0, weight=0.3),
    dedupe="price",
    pins=(Pin(slot=1, match=Match(item_ids=("i7",))),),
    floors=(Floor(slots=2, match=NEW),),
    cap=4,
    thompson=Thompson(impressions_below=20, draws=60),
    diversity=Diversity(
        method="dpp",
        trade_off=0.8,
        category=0.5,
        attributes=(Likeness(attribute="year", weight=0.5, scale=4.0),),
    ),
    epsilon=0.3,
)
POLICIES = {
    "epsilon_greedy": Policy(epsilon=0.4),
    "diverse": Policy(diversity=Diversity(method="mmr", trade_off=0.5), cap=3, epsilon=0.2),
    "cold": Policy(thompson=Thompson(impressions_below=20, draws=60), epsilon=0.1),
    "everything": EVERYTHING,
}


async def a_rig(settings: RankerSettings, policy: Policy) -> Rig:
    """Items of three categories, with years and prices."""
    epsilon = {"explore_epsilon": policy.epsilon}
    named = {} if policy.is_plain else {"default": policy}
    rig = Rig(settings.model_copy(update=epsilon), policies=named)
    for n, item in enumerate(ITEM_IDS):
        row = item_row(n, ("drama", "comedy", "news")[n % 3])
        row["attributes"][0] = [1980 + n, n // 2]
        rig.store.stored_items[item] = row
    await rig.serve_model("champion", "m1", sign=-1.0)
    return rig


async def reproduced(rig: Rig, request_id: str = "r1", record: bytes = b"") -> ReproduceReply:
    await rig.answers.drain(5.0)
    return await rig.ranker.reproduce(request_id, record, transport="grpc")


def codes(reply: ReproduceReply) -> list[str]:
    return [difference.code for difference in reply.differences]


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
async def test_an_answer_comes_out_again_to_the_last_bit(
    settings: RankerSettings, policy: Policy
) -> None:
    rig = await a_rig(settings, policy)
    for request in range(8):
        await recommend(rig, n=8, request_id=f"r{request}")
        reply = await reproduced(rig, f"r{request}")

        assert codes(reply) == []
        assert (reply.items, reply.candidates, reply.model_sha256) == (8, 30, "m1")


async def test_given_items_and_empty_slates_come_out_again(settings: RankerSettings) -> None:
    rig = await a_rig(settings, POLICIES["diverse"])

    await rank(rig, ["i3", "i9", "i4"], request_id="r1")
    await recommend(rig, request_id="r2", exclude_item_ids=ITEM_IDS)

    assert codes(await reproduced(rig, "r1")) == codes(await reproduced(rig, "r2")) == []


async def test_a_utility_is_made_again_from_the_vectors(settings: RankerSettings) -> None:
    rig = await a_rig(settings, POLICIES["everything"])
    utility = Utility(click=1.0, purchase=2.0, value="item_price")
    await rig.serve_model("champion", "m2", utility=utility)

    await recommend(rig, request_id="r1")

    assert codes(await reproduced(rig)) == []


async def test_an_answer_of_a_real_graph_comes_out_again(
    settings: RankerSettings, tmp_path: Path
) -> None:
    rig = await a_rig(settings, POLICIES["everything"])
    artifact = write_ranker(tmp_path, "m1", CHAMPION_WEIGHTS + np.float32(0.01))
    rig.loaded["/real"] = OnnxModel.load(artifact.uri, artifact.sha256)
    await rig.point("ranker/champion", "real")

    await recommend(rig, request_id="r1")

    assert codes(await reproduced(rig)) == []


def other_logit(slate: ServedSlate) -> None:
    slate.logit[1] = float(np.nextafter(np.float32(slate.logit[1]), np.float32(9)))


def other_pctr(slate: ServedSlate) -> None:
    slate.pctr[0] = 0.5


def other_place(slate: ServedSlate) -> None:
    slate.place[0], slate.place[1] = slate.place[1], slate.place[0]


def other_propensity(slate: ServedSlate) -> None:
    slate.propensity[2] = float(np.nextafter(slate.propensity[2], 0.0))


def other_salt(slate: ServedSlate) -> None:
    slate.policy_salt = "policy-2"


def other_steps(slate: ServedSlate) -> None:
    del slate.step[:]


def other_hash(slate: ServedSlate) -> None:
    slate.policy_hash = "0123456789abcdef"


def no_facts(slate: ServedSlate) -> None:
    slate.ClearField("facts")


def other_facts(slate: ServedSlate) -> None:
    changed = np.frombuffer(slate.facts.preference, "<f4").copy()
    changed[slate.candidate[0]] += np.float32(1e-3)
    slate.facts.preference = changed.tobytes()


@pytest.mark.parametrize(
    ("change", "policy", "expected"),
    [
        (other_logit, "epsilon_greedy", {"scores_differ"}),
        (other_pctr, "everything", {"scores_differ"}),
        (other_place, "epsilon_greedy", {"preferences_differ", "slate_differs"}),
        (other_place, "diverse", {"slate_differs"}),
        (other_propensity, "epsilon_greedy", {"propensities_differ"}),
        (other_propensity, "cold", {"propensities_differ"}),
        (other_salt, "cold", {"slate_differs", "propensities_differ", "steps_differ"}),
        (other_steps, "everything", {"steps_differ"}),
        (other_hash, "epsilon_greedy", {"policy_unknown"}),
        (no_facts, "diverse", {"candidates_not_kept"}),
        (other_facts, "diverse", {"preferences_differ"}),
    ],
)
async def test_what_differs_is_named(
    settings: RankerSettings,
    change: Callable[[ServedSlate], None],
    policy: str,
    expected: set[str],
) -> None:
    rig = await a_rig(settings, POLICIES[policy])
    await recommend(rig, n=8, request_id="r1")
    (slate,) = await rig.slates()

    change(slate)
    reply = await reproduced(rig, record=slate.SerializeToString())

    assert set(codes(reply)) == expected


class Normalised(FakeModel):
    """Scores hang on the largest value of the batch, as with dynamic quantisation."""

    def score(self, features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Scores:
        found = super().score(features)
        return found._replace(logit=found.logit / np.abs(features).max())


async def test_scores_that_hang_on_other_rows_are_named_so(settings: RankerSettings) -> None:
    rig = await a_rig(settings, POLICIES["epsilon_greedy"])
    means = np.full(len(CHAMPION_WEIGHTS), 7e4, np.float32)
    rig.loaded["/n"] = Normalised(CHAMPION_WEIGHTS, model_id="n", means=means)
    await rig.point("ranker/champion", "n")

    await recommend(rig, request_id="r1")

    assert "scores_depend_on_other_rows" in codes(await reproduced(rig))


async def test_a_policy_that_is_not_configured_any_more_is_in_the_record(
    settings: RankerSettings,
) -> None:
    rig = await a_rig(settings, POLICIES["everything"])
    await recommend(rig, request_id="r1")
    (slate,) = await rig.slates()

    later = await a_rig(settings, POLICIES["epsilon_greedy"])

    assert codes(await reproduced(later, record=slate.SerializeToString())) == []


async def test_a_model_that_is_not_loaded_any_more_is_loaded_from_its_folder(
    settings: RankerSettings,
) -> None:
    rig = await a_rig(settings, POLICIES["epsilon_greedy"])
    await recommend(rig, request_id="r1")
    first: Model = rig.loaded["/m1"]
    for n in range(2, 9):
        await rig.serve_model("champion", f"m{n}")

    rig.loaded["/artifacts/ranker/m1"] = first

    assert codes(await reproduced(rig)) == []


async def test_a_record_must_be_of_the_answer_asked_for(rig: Rig) -> None:
    slate = ServedSlate(request_id="r2", model_id="m1")

    with pytest.raises(InvalidRequest, match="record is of answer 'r2'"):
        await reproduced(rig, "r1", slate.SerializeToString())
    with pytest.raises(InvalidRequest, match="is not a slate"):
        await reproduced(rig, "r1", b"\xff\xff")
    outside = ServedSlate(request_id="r1", model_id="../m1")
    with pytest.raises(InvalidRequest, match=r"by model '\.\./m1'"):
        await reproduced(rig, "r1", outside.SerializeToString())


async def test_a_record_that_does_not_hold_enough_is_refused(rig: Rig) -> None:
    await recommend(rig, request_id="r1")
    (slate,) = await rig.slates()

    del slate.place[:]
    with pytest.raises(UnknownAnswer, match="does not hold what its 10 items"):
        await reproduced(rig, "r1", slate.SerializeToString())
    slate.spec_id = "another"
    with pytest.raises(SpecMismatch, match="Not reproduced"):
        await reproduced(rig, "r1", slate.SerializeToString())
    with pytest.raises(UnknownAnswer, match=r"Not reproduced\. Previews are not kept"):
        await reproduced(rig, "r9")


LISTS = ("item_id", "logit", "pctr", "propensity", "candidate", "place", "step")
NUMBERS = ("candidates", "slots", "served_time_ms", "propensity_draws")
FACTS = ("category", "category_name", "impressions", "clicks", "category_clicks", "item_id")


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_record_of_any_content_is_answered_or_refused_by_name(
    ready: tuple[Rig, ServedSlate], data: st.DataObject
) -> None:
    rig, whole = ready
    slate = ServedSlate.FromString(whole.SerializeToString())
    message, name = data.draw(
        st.sampled_from(
            [
                *((slate, name) for name in (*LISTS, *NUMBERS, "features", "policy_salt")),
                *((slate.facts, name) for name in (*FACTS, "preference", "attribute", "config")),
            ]
        )
    )
    found = getattr(message, name)
    if isinstance(found, int):
        setattr(message, name, data.draw(st.integers(-(2**31), 2**31 - 1)))
    elif isinstance(found, bytes):
        setattr(message, name, found[: data.draw(st.integers(0, len(found)))])
    elif isinstance(found, str):
        setattr(message, name, data.draw(st.text(max_size=9)))
    else:
        del found[data.draw(st.integers(0, len(found))) :]
        if name in ("candidate", "place", "category", "impressions", "clicks"):
            found.extend(data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=3)))

    with suppress(UnknownAnswer, InvalidRequest):  # and nothing else
        await rig.ranker.reproduce("r1", slate.SerializeToString(), transport="grpc")


@pytest.fixture
async def ready(settings: RankerSettings) -> tuple[Rig, ServedSlate]:
    """A record that holds everything a record may hold."""
    rig = await a_rig(settings, EVERYTHING)
    await recommend(rig, n=8, request_id="r1")
    (slate,) = await rig.slates()
    return rig, slate
