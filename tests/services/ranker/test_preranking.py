"""Candidates that are cut before they are ranked."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.contracts.manifest import Utility
from rankstream.contracts.policy import Diversity, Policy
from rankstream.errors import InvalidRequest, UnknownAnswer
from rankstream.features.snapshot import PARTIAL_NAMES
from rankstream.pb.events_pb2 import ServedSlate
from rankstream.testing import FakeModel
from services.ranker.candidates import RetrievalFailed
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, Rig, an_experiment, rank, recommend
from tests.services.ranker.fakes import ITEM_IDS

KEEP = 12
STAND_IN = np.zeros(len(PARTIAL_NAMES))
STAND_IN[PARTIAL_NAMES.index("item_log_impressions")] = 1.0


async def a_rig(settings: RankerSettings, policy: Policy | None = None, keep: int = KEEP) -> Rig:
    """Candidates i2 to i31, of which the last are shown most; model and stand-in prefer those."""
    named = {} if policy is None else {"default": policy}
    rig = Rig(settings.model_copy(update={"prerank_keep": keep}), policies=named)
    await serve(rig, "champion", "m1")
    return rig


async def serve(rig: Rig, alias: str, model_id: str, sign: float = 1.0) -> None:
    model = FakeModel(CHAMPION_WEIGHTS * sign, model_id=model_id, prerank=STAND_IN)
    rig.loaded[f"/{model_id}"] = model
    await rig.point(f"ranker/{alias}", model_id)


async def differences(rig: Rig, request_id: str = "r1", record: bytes = b"") -> list[str]:
    await rig.answers.drain(5.0)
    reply = await rig.ranker.reproduce(request_id, record, transport="grpc")
    return [difference.code for difference in reply.differences]


async def test_the_best_by_the_stand_in_are_ranked_and_the_record_says_so(
    settings: RankerSettings,
) -> None:
    rig = await a_rig(settings)
    await serve(rig, "champion", "m2", sign=-1.0)

    reply = await recommend(rig, n=5)

    assert list(reply.item_id) == [f"i{n}" for n in range(20, 25)]
    assert reply.candidates == KEEP
    (slate,) = await rig.slates()
    cut = slate.prerank
    assert (cut.model_id, cut.model_sha256, cut.before) == ("m2", "m2", 30)
    assert cut.cut == pytest.approx(np.log1p(19))
    assert list(cut.score) == pytest.approx(np.log1p(np.arange(20, 25)))


@pytest.mark.parametrize(
    "policy",
    [None, Policy(diversity=Diversity(method="mmr", trade_off=0.5), epsilon=0.3)],
    ids=["epsilon_greedy", "diverse"],
)
async def test_an_answer_after_a_cut_comes_out_again_to_the_last_bit(
    settings: RankerSettings, policy: Policy | None
) -> None:
    rig = await a_rig(settings, policy)

    for request in range(5):
        await recommend(rig, n=8, request_id=f"r{request}")

        assert await differences(rig, f"r{request}") == []


async def test_a_record_whose_cut_is_not_the_stand_ins_is_told_apart(
    settings: RankerSettings,
) -> None:
    rig = await a_rig(settings)
    await recommend(rig, n=5, request_id="r1")
    (kept,) = await rig.slates()

    def changed() -> ServedSlate:
        return ServedSlate.FromString(kept.SerializeToString())

    score, cut, whose = changed(), changed(), changed()
    score.prerank.score[2] += 1e-12
    cut.prerank.cut = 100.0
    whose.prerank.model_id = whose.prerank.model_sha256 = "m2"
    await rig.serve_model("challenger", "m2")

    for record in (score, cut, whose):
        assert await differences(rig, "r1", record.SerializeToString()) == ["cut_differs"]


async def test_explain_tells_of_the_cut_and_of_none(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    await recommend(rig, n=5, request_id="r1")
    await recommend(rig, n=5, request_id="r2", exclude_item_ids=ITEM_IDS[5:])

    cut = (await rig.ranker.explain("r1", transport="grpc")).prerank
    none = await rig.ranker.explain("r2", transport="grpc")

    assert (cut.model_id, cut.before, len(cut.score)) == ("m1", 30, 5)
    assert not none.HasField("prerank")


async def test_a_slate_is_never_shorter_for_a_cut(settings: RankerSettings) -> None:
    rig = await a_rig(settings, keep=3)

    reply = await recommend(rig, n=20)

    assert len(reply.item_id) == reply.candidates == 20


async def test_given_items_are_not_cut(settings: RankerSettings) -> None:
    rig = await a_rig(settings)

    reply = await rank(rig, ITEM_IDS)

    assert len(reply.item_id) == reply.candidates == len(ITEM_IDS)


async def test_a_model_without_a_stand_in_ranks_all(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    await rig.serve_model("champion", "m2", utility=Utility(click=1.0, purchase=1.0))

    assert (await recommend(rig)).candidates == 30


async def test_neither_of_two_interleaved_models_cuts(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    await serve(rig, "challenger", "m2", sign=-1.0)
    control, new = an_experiment().variants
    both = new.model_copy(update={"interleave_with": "champion"})
    await rig.define(variants=(control, both))

    assert (await recommend(rig)).candidates == 30
    (slate,) = await rig.slates()
    assert slate.interleaving.model_id
    assert not slate.HasField("prerank")


async def test_a_canary_ranks_what_the_champions_stand_in_left(settings: RankerSettings) -> None:
    half = {"canary_alias": "canary", "canary_percent": 50.0}
    rig = await a_rig(settings.model_copy(update=half))
    await rig.serve_model("canary", "m2", sign=-1.0)

    for request in range(12):
        await recommend(rig, n=5, request_id=f"r{request}")

    slates = await rig.slates()
    by_canary = [slate for slate in slates if slate.model_id == "m2"]
    assert 0 < len(by_canary) < len(slates)
    for slate in by_canary:
        assert (slate.prerank.model_id, slate.prerank.model_sha256) == ("m1", "m1")
        assert list(slate.item_id) == [f"i{n}" for n in range(20, 25)]
        assert await differences(rig, slate.request_id) == []


async def test_without_rows_the_first_candidates_stay(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    rig.store.stuck = True

    reply = await recommend(rig, n=20)

    assert list(reply.degraded) == ["features_timeout"]
    # No actions are known either, so nothing is left out.
    assert list(reply.item_id) == ITEM_IDS[:20]


async def test_popular_items_are_cut_too(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    await rig.know_popular()
    rig.retrieval.fails = RetrievalFailed("retrieval_unavailable", "gone")

    reply = await recommend(rig, n=3)

    assert list(reply.item_id) == ["i39", "i38", "i37"]
    assert reply.candidates == KEEP


async def test_a_record_of_an_impossible_cut_is_refused(settings: RankerSettings) -> None:
    rig = await a_rig(settings)
    await recommend(rig, n=5, request_id="r1")
    (kept,) = await rig.slates()
    path, few = (ServedSlate.FromString(kept.SerializeToString()) for _ in range(2))
    path.prerank.model_id = "../m1"
    few.prerank.before = KEEP - 1

    with pytest.raises(InvalidRequest, match=r"'\.\./m1'"):
        await differences(rig, "r1", path.SerializeToString())
    with pytest.raises(UnknownAnswer, match="does not hold what its 5 items"):
        await differences(rig, "r1", few.SerializeToString())
