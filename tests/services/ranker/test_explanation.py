"""An answer is explained by the model and the vector that made it."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.errors import UnknownAnswer
from rankstream.features import spec
from services.ranker.candidates import RetrievalFailed
from tests.services.ranker.conftest import Rig, rank, recommend
from tests.services.ranker.fakes import ITEM_IDS


async def test_contributions_are_those_of_the_vector_that_was_scored(rig: Rig) -> None:
    reply = await recommend(rig, n=2)
    await rig.serve_model("champion", "m2", sign=-1)  # the answer is explained by its own model

    explained = await rig.ranker.explain(reply.request_id, transport="http")

    top = explained.items[0]
    best = top.contributions[0]
    assert (explained.model_id, top.item_id, len(top.contributions)) == ("m1", "i31", spec.WIDTH)
    assert best.feature == "item_log_impressions"
    assert best.contribution == pytest.approx(np.log1p(31), rel=1e-5)
    assert explained.method == "occlusion_to_training_mean"


async def test_an_answer_of_a_model_that_is_gone_is_not_explained_by_another(rig: Rig) -> None:
    reply = await recommend(rig)
    for n in range(2, 6):
        await rig.serve_model("champion", f"m{n}")

    with pytest.raises(UnknownAnswer, match=r"its model m1 is not loaded any more"):
        await rig.ranker.explain(reply.request_id, transport="grpc")


async def test_each_item_is_credited_to_the_sources_that_named_it(rig: Rig) -> None:
    reply = await recommend(rig, n=4, exclude_item_ids=["i30"])

    explained = await rig.ranker.explain(reply.request_id, transport="http")

    assert {item.item_id: list(item.sources) for item in explained.items} == {
        item_id: ["towers", "company"][: 1 + ITEM_IDS.index(item_id) % 2]
        for item_id in reply.item_id
    }


async def test_popular_items_in_place_of_retrieval_are_credited_as_such(rig: Rig) -> None:
    await rig.know_popular()
    rig.retrieval.fails = RetrievalFailed("retrieval_timeout", "late")
    reply = await recommend(rig, n=3)

    explained = await rig.ranker.explain(reply.request_id, transport="http")

    assert [list(item.sources) for item in explained.items] == [["popular"]] * 3


async def test_given_items_have_no_sources(rig: Rig) -> None:
    reply = await rank(rig, ["i1", "i2"])

    explained = await rig.ranker.explain(reply.request_id, transport="http")

    assert [list(item.sources) for item in explained.items] == [[], []]
