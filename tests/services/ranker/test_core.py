"""Answers: what is in them, what is recorded of them, and what happens when parts are missing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from rankstream.contracts.filter import (
    GeoRadius,
    ItemFilter,
    PriceRange,
    decode_filter,
)
from rankstream.contracts.ids import id64
from rankstream.contracts.manifest import Utility
from rankstream.errors import (
    DependencyUnavailable,
    NotReady,
    QueueFull,
    UnknownAnswer,
)
from rankstream.features import spec
from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.snapshot import snapshot
from rankstream.pb import filter_pb2
from rankstream.pb import ranker_pb2 as pb
from rankstream.testing import FakeModel
from services.ranker.candidates import RetrievalFailed
from services.ranker.requests import recommend_of
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, Rig, rank, recommend
from tests.services.ranker.fakes import (
    ITEM_IDS,
    NOW_MS,
    category_row,
    context_row,
    item_row,
    user_row,
)


async def test_a_slate_has_the_best_of_the_candidates_first(rig: Rig) -> None:
    reply = await recommend(rig, n=3)

    # 30 candidates without the two that the user acted on last: i2 to i31.
    assert list(reply.item_id) == ["i31", "i30", "i29"]
    assert (reply.candidates, reply.model_id, reply.index_id) == (30, "m1", "index-1")
    assert list(reply.category) == ["drama"] * 3
    assert list(reply.propensity) == [1.0] * 3
    assert list(reply.degraded) == []
    assert reply.served_time_ms == NOW_MS


async def test_a_utility_orders_by_purchases_as_well(rig: Rig) -> None:
    await rig.serve_model("champion", "m2", utility=Utility(click=0.0, purchase=1.0))

    reply = await recommend(rig, n=3)

    # The purchase head of the rig likes what the other one does not.
    assert list(reply.item_id) == ["i2", "i3", "i4"]
    assert list(reply.score) == sorted(reply.score)


async def test_a_utility_pays_by_the_value_of_a_purchase(rig: Rig) -> None:
    priced = item_row(20)
    priced["attributes"][0, ITEM_ATTRIBUTES.index("price")] = 100.0
    rig.store.stored_items["i20"] = priced
    utility = Utility(click=1.0, purchase=1.0, value="item_price", value_default=1e-3)
    await rig.serve_model("champion", "m2", utility=utility)

    reply = await recommend(rig, n=2)

    assert list(reply.item_id) == ["i20", "i31"]


async def test_a_purchase_head_that_is_not_finite_answers_nothing(rig: Rig) -> None:
    await rig.serve_model(
        "champion", "m2", utility=Utility(click=1.0, purchase=1.0), purchase_sign=np.nan
    )

    with pytest.raises(DependencyUnavailable, match="model m2 gave 30 of 30 scores that are not"):
        await recommend(rig)


async def test_zero_means_ten(rig: Rig) -> None:
    assert len((await recommend(rig)).item_id) == 10


async def test_retrieval_is_asked_for_what_the_user_has_not_had(rig: Rig) -> None:
    reply = await recommend(rig, exclude_item_ids=["i31"], n=1)

    (asked,) = rig.retrieval.asked
    assert list(asked.recent_items) == list(asked.exclude_items) == [id64("i0"), id64("i1")]
    assert (asked.request_id, asked.k) == (reply.request_id, 30)
    assert list(asked.exclude_item_ids) == ["i31"]
    assert list(reply.item_id) == ["i32"]


async def test_the_place_of_a_request_goes_to_retrieval(rig: Rig) -> None:
    message = pb.RecommendRequest(user_id="u1")
    message.context.place.CopyFrom(filter_pb2.Place(latitude=48.1, longitude=11.6))

    await rig.ranker.recommend(recommend_of(message), transport="grpc")
    await recommend(rig)

    placed, other = rig.retrieval.asked
    assert placed.place == message.context.place
    assert not other.HasField("place")


async def test_a_filter_goes_to_retrieval_as_it_is(rig: Rig) -> None:
    wanted = ItemFilter(
        categories=["drama"],
        price=PriceRange(max=9.5),
        near=GeoRadius(latitude=48.1, longitude=11.6, radius_km=5),
        item_ids=["i3"],
    )

    await recommend(rig, filter=wanted)

    (asked,) = rig.retrieval.asked
    assert decode_filter(asked.filter) == wanted


async def test_without_retrieval_a_filter_is_refused_rather_than_ignored(rig: Rig) -> None:
    await rig.know_popular()
    rig.retrieval.fails = RetrievalFailed("retrieval_unavailable", "nobody there")

    with pytest.raises(DependencyUnavailable, match="popular items may not pass the filter"):
        await recommend(rig, filter=ItemFilter(categories=["drama"]))
    assert list((await recommend(rig, filter=ItemFilter())).degraded) == ["retrieval_unavailable"]


async def test_the_record_explains_and_reproduces_the_answer(rig: Rig) -> None:
    asked = {"device": "phone", "query": "q", "location": "home"}

    await recommend(rig, n=2, request_id="r1", context=asked)

    (slate,) = await rig.slates()
    expected = snapshot(
        user_row(["i0", "i1"]),
        np.concatenate([item_row(31), item_row(30)]),
        np.concatenate([category_row(), category_row()]),
        np.stack([context_row(7), context_row(3)], axis=1),
        np.array([NOW_MS]),
    )
    assert slate.features == expected.tobytes()
    assert slate.logit == pytest.approx((expected @ CHAMPION_WEIGHTS).tolist())
    assert (slate.spec_id, slate.policy) == (spec.SPEC_ID, "epsilon_greedy:0:policy-1")
    assert (slate.user_stamp.partition, slate.user_stamp.offset) == (1, 77)
    assert [(s.partition, s.offset, s.items_offset) for s in slate.item_stamp] == [
        (2, 41, 5),
        (2, 40, 5),
    ]
    assert [(s.partition, s.offset) for s in slate.category_stamp] == [(3, 99)] * 2
    assert (slate.query_stamp.offset, slate.location_stamp.offset) == (107, 103)
    assert (slate.request_id, slate.user_id) == ("r1", "u1")
    assert {name: getattr(slate, name) for name in asked} == asked
    assert rig.log.records[0][1] == b"u1"
    assert rig.count("ranker_log_records_total", topic="served", fate="acked") == 1


async def test_exploration_is_reproduced_from_the_request_id(settings: RankerSettings) -> None:
    rig = Rig(settings.model_copy(update={"explore_epsilon": 0.5}))
    await rig.serve_model("champion", "m1")

    first = await recommend(rig, request_id="r1", preview=True)
    again = await recommend(rig, request_id="r1", preview=True)
    other = await recommend(rig, request_id="r2", preview=True)

    assert first == again
    assert list(first.item_id) != list(other.item_id)
    assert min(first.propensity) < 0.5 < max(first.propensity)


async def test_a_preview_leaves_no_trace(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2")
    await rig.define()

    await recommend(rig, request_id="r1", preview=True)

    assert await rig.slates() == await rig.exposures() == []
    with pytest.raises(UnknownAnswer, match="Previews are not kept"):
        await rig.ranker.explain("r1", transport="grpc")


# Variants


async def test_a_running_experiment_decides_the_model_and_logs_the_exposure(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2", sign=-1)
    await rig.define(version=4)

    reply = await recommend(rig, n=1)

    (exposure,) = await rig.exposures()
    (slate,) = await rig.slates()
    assert (reply.model_id, reply.experiment_id, reply.variant) == ("m2", "exp-1", "new")
    assert list(reply.item_id) == ["i2"]
    assert (exposure.unit, exposure.variant, exposure.experiment_version) == ("u1", "new", 4)
    assert (exposure.request_id, exposure.exposure_time_ms) == (reply.request_id, NOW_MS)
    assert not exposure.overridden
    assert (slate.experiment_id, slate.experiment_version, slate.variant) == ("exp-1", 4, "new")


async def test_a_stopped_experiment_decides_nothing(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2")
    await rig.define(status="stopped", stop_ms=NOW_MS)

    reply = await recommend(rig)

    assert (reply.model_id, reply.experiment_id) == ("m1", "")
    assert await rig.exposures() == []


async def test_an_override_beats_the_assignment_and_says_so(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2")
    await rig.define()

    reply = await recommend(rig, variant_overrides={"exp-1": "control"})

    (exposure,) = await rig.exposures()
    assert (reply.model_id, reply.variant, exposure.overridden) == ("m1", "control", True)


async def test_an_override_of_a_draft_answers_but_exposes_nobody(rig: Rig) -> None:
    await rig.serve_model("challenger", "m2")
    await rig.define(status="draft", start_ms=None)

    reply = await recommend(rig, variant_overrides={"exp-1": "new"})

    assert (reply.model_id, reply.variant) == ("m2", "new")
    assert await rig.exposures() == []


async def test_a_variant_without_its_model_gets_the_champion_outside_the_experiment(
    rig: Rig,
) -> None:
    await rig.define()

    reply = await recommend(rig)

    assert (reply.model_id, reply.experiment_id) == ("m1", "")
    assert list(reply.degraded) == ["variant_model_missing"]
    assert await rig.exposures() == []


# Degraded answers


async def test_an_unknown_user_is_ranked_on_defaults(rig: Rig) -> None:
    reply = await recommend(rig, "nobody", n=5)

    assert (len(reply.item_id), list(reply.degraded)) == (5, ["unknown_user"])
    assert rig.count("ranker_degraded_total", reason="unknown_user") == 1


async def test_a_feature_store_that_does_not_answer_costs_one_deadline(rig: Rig) -> None:
    rig.store.stuck = True

    reply = await asyncio.wait_for(recommend(rig, n=5), 1.0)

    assert (len(reply.item_id), list(reply.degraded)) == (5, ["features_timeout"])
    assert rig.store.waits == 1
    (slate,) = await rig.slates()
    assert (slate.user_stamp.offset, slate.item_stamp[0].offset) == (-1, -1)


async def test_without_retrieval_the_popular_items_are_ranked(rig: Rig) -> None:
    await rig.know_popular()
    rig.retrieval.fails = RetrievalFailed("retrieval_timeout", "late")

    reply = await recommend(rig, exclude_item_ids=["i39"], n=2)

    assert list(reply.degraded) == ["retrieval_timeout"]
    assert (reply.index_id, reply.candidates, list(reply.item_id)) == (
        "index-0",
        30,
        ["i38", "i37"],
    )


async def test_without_retrieval_and_popular_items_it_says_so(rig: Rig) -> None:
    rig.retrieval.fails = RetrievalFailed("retrieval_unavailable", "UNAVAILABLE: nobody there")

    with pytest.raises(DependencyUnavailable, match="no popular items are known"):
        await recommend(rig)


async def test_items_withdrawn_meanwhile_are_not_shown(rig: Rig) -> None:
    rig.store.stored_items["i31"] = item_row(31, withdrawn=True)

    assert list((await recommend(rig, n=1)).item_id) == ["i30"]


async def test_no_candidates_make_an_empty_slate_with_its_reason(rig: Rig) -> None:
    reply = await recommend(rig, exclude_item_ids=ITEM_IDS)

    assert (len(reply.item_id), list(reply.degraded)) == (0, ["no_candidates"])


async def test_a_model_without_numbers_is_named(rig: Rig) -> None:
    rig.loaded["/bad"] = FakeModel(np.full(spec.WIDTH, np.nan, np.float32), model_id="bad")
    await rig.point("ranker/champion", "bad")

    with pytest.raises(DependencyUnavailable, match="model bad gave 30 of 30 scores"):
        await recommend(rig)


# Rank


async def test_given_items_are_ordered_and_unknown_ones_listed(rig: Rig) -> None:
    reply = await rank(rig, ["i3", "what", "i9"])

    assert list(reply.item_id) == ["i9", "i3", "what"]
    assert list(reply.unknown_item_ids) == ["what"]
    assert reply.index_id == ""


async def test_rank_can_be_asked_for_the_best_only(rig: Rig) -> None:
    assert list((await rank(rig, ["i3", "i8", "i9"], n=2)).item_id) == ["i9", "i8"]


# Limits


async def test_before_the_first_model_it_is_not_ready(cold: Rig) -> None:
    with pytest.raises(NotReady, match="champion: starting"):
        await recommend(cold)


async def test_too_many_requests_at_once_are_shed(settings: RankerSettings) -> None:
    rig = Rig(settings.model_copy(update={"inflight_max": 2}))
    await rig.serve_model("champion", "m1")
    rig.retrieval.gate = asyncio.Event()
    waiting = [asyncio.create_task(recommend(rig)) for _ in range(2)]
    while len(rig.retrieval.asked) < 2:
        await asyncio.sleep(0)

    with pytest.raises(QueueFull, match=r"2 requests are being answered \(limit 2\)"):
        await recommend(rig)

    rig.retrieval.gate.set()
    assert len(await asyncio.gather(*waiting)) == 2
    await recommend(rig)
    assert (
        rig.count(
            "ranker_requests_total", method="recommend", transport="grpc", status="queue_full"
        )
        == 1
    )


async def test_an_answer_that_could_not_be_recorded_is_not_given(
    settings: RankerSettings,
) -> None:
    rig = Rig(settings.model_copy(update={"log_queue_max": 5}))
    await rig.serve_model("champion", "m1")
    rig.log.gate = asyncio.Event()
    await recommend(rig)
    await recommend(rig)  # 2 slates and 2 kept answers wait; 3 more could be too many

    with pytest.raises(QueueFull, match="an answer without its record would bias"):
        await recommend(rig)
    previewed = await recommend(rig, preview=True)
    rig.log.gate.set()

    assert len(await rig.slates()) == 2
    assert previewed.item_id
    assert (await recommend(rig)).item_id


async def test_a_record_without_ack_is_counted_as_lost(rig: Rig) -> None:
    rig.log.fails = True

    await recommend(rig)
    await rig.answers.drain(1.0)

    assert rig.count("ranker_log_records_total", topic="served", fate="lost") == 1


async def test_stopping_waits_for_records_and_counts_those_still_open(rig: Rig) -> None:
    rig.log.gate = asyncio.Event()
    await recommend(rig)

    await rig.answers.drain(0.01)

    assert rig.count("ranker_log_records_total", topic="", fate="lost") == 1
    assert rig.log.records == []
