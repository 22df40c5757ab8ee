"""A shadow scores what was answered, behind the answer, and never holds one up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from rankstream.contracts.policy import Match, Policy, Rule
from rankstream.features import spec
from rankstream.pb.events_pb2 import ShadowSlate
from rankstream.ports import Scores
from rankstream.testing import FakeModel
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, Rig, recommend


class Stuck(FakeModel):
    """Scores when it is let to."""

    def __init__(self) -> None:
        super().__init__(-CHAMPION_WEIGHTS, model_id="m2")
        self.go = threading.Event()

    def score(self, features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Scores:
        self.go.wait(10.0)
        return super().score(features)


@pytest.fixture
async def shadowed(settings: RankerSettings) -> AsyncIterator[Rig]:
    """A champion that likes many impressions, a shadow that likes few."""
    rig = Rig(settings.model_copy(update={"shadow_alias": "next", "shadow_queue_max": 3}))
    await rig.serve_model("champion", "m1")
    await rig.serve_model("next", "m2", sign=-1.0)
    yield rig
    rig.shadow.close()


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[None]:
    task = asyncio.create_task(rig.shadow.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def shadows(rig: Rig, count: int) -> list[ShadowSlate]:
    """The first records of topic shadow, once there are so many."""
    async with asyncio.timeout(5.0):
        while True:
            found = [value for topic, _, value in rig.log.records if topic == "shadow"]
            if len(found) >= count:
                return [ShadowSlate.FromString(body) for body in found]
            await asyncio.sleep(0.001)


async def test_it_logs_what_both_models_make_of_both_slates(shadowed: Rig) -> None:
    async with running(shadowed):
        reply = await recommend(shadowed, n=2, request_id="r1")
        (found,) = await shadows(shadowed, 1)

    assert list(reply.item_id) == ["i31", "i30"]
    assert (found.request_id, found.user_id) == ("r1", "u1")
    assert (found.model_id, found.shadow_model_id) == ("m1", "m2")
    assert (found.slots, found.candidates) == (2, 30)
    assert list(found.item_id) == ["i31", "i30", "i2", "i3"]
    assert list(found.place) == [0, 1, 29, 28]
    assert list(found.shadow_place) == [29, 28, 0, 1]
    assert list(found.pctr)[:2] == list(reply.score)
    assert np.array(found.shadow_pctr) == pytest.approx(1 - np.array(found.pctr), abs=1e-6)
    assert found.score_ms > 0
    assert shadowed.count("ranker_shadow_answers_total", fate="logged") == 1


async def test_answers_do_not_wait_and_what_does_not_fit_is_dropped(shadowed: Rig) -> None:
    stuck = Stuck()
    shadowed.loaded["/stuck"] = stuck
    await shadowed.point("ranker/next", "stuck")

    async with running(shadowed):
        for _ in range(8):  # one is being scored, three wait
            await asyncio.wait_for(recommend(shadowed), 1.0)
            await asyncio.sleep(0)
        dropped = shadowed.count("ranker_shadow_answers_total", fate="dropped")
        stuck.go.set()
        found = await shadows(shadowed, 4)

    assert dropped == 4
    assert len(found) == 4


async def test_a_shadow_that_fails_is_counted_and_the_next_one_is_scored(shadowed: Rig) -> None:
    shadowed.loaded["/bad"] = FakeModel(np.full(spec.WIDTH, np.nan, np.float32), model_id="bad")
    await shadowed.point("ranker/next", "bad")

    async with running(shadowed):
        await recommend(shadowed)
        async with asyncio.timeout(5.0):
            while not shadowed.count("ranker_shadow_answers_total", fate="failed"):
                await asyncio.sleep(0.001)
        await shadowed.serve_model("next", "m3")
        await recommend(shadowed)
        (found,) = await shadows(shadowed, 1)

    assert found.shadow_model_id == "m3"


async def test_a_record_that_kafka_does_not_take_is_lost_and_counted(shadowed: Rig) -> None:
    shadowed.log.fails = True

    async with running(shadowed):
        await recommend(shadowed)
        async with asyncio.timeout(5.0):
            while not shadowed.count("ranker_shadow_answers_total", fate="lost"):
                await asyncio.sleep(0.001)


async def test_previews_and_empty_slates_have_no_shadow(shadowed: Rig) -> None:
    async with running(shadowed):
        await recommend(shadowed, preview=True)
        await recommend(shadowed, exclude_item_ids=[f"i{n}" for n in range(40)])
        await recommend(shadowed, request_id="last")
        (found,) = await shadows(shadowed, 1)

    assert found.request_id == "last"


async def test_a_share_of_the_answers_is_scored(settings: RankerSettings) -> None:
    none = {"shadow_alias": "next", "shadow_percent": 0.0}
    rig = Rig(settings.model_copy(update=none))
    await rig.serve_model("champion", "m1")
    await rig.serve_model("next", "m2", sign=-1.0)

    async with running(rig):
        await recommend(rig)
        await asyncio.sleep(0.05)

    assert [topic for topic, _, _ in rig.log.records] == ["served"]
    rig.shadow.close()


async def test_the_record_is_by_the_models_and_not_by_the_policy(settings: RankerSettings) -> None:
    bury = Policy(rules=(Rule(action="exclude", match=Match(item_ids=("i31",))),), epsilon=0.0)
    alias = settings.model_copy(update={"shadow_alias": "next"})
    rig = Rig(alias, policies={"default": bury})
    await rig.serve_model("champion", "m1")
    await rig.serve_model("next", "m2")

    async with running(rig):
        await recommend(rig, n=1)
        (found,) = await shadows(rig, 1)

    assert list(found.item_id) == ["i30", "i31"]
    assert list(found.place) == list(found.shadow_place) == [1, 0]
    rig.shadow.close()
