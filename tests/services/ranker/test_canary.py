"""A canary gets its share, is watched beside a control, and is taken off by itself."""

from __future__ import annotations

from collections import Counter

import httpx
import numpy as np
import pytest

from rankstream.contracts.ids import new_id
from rankstream.errors import DependencyUnavailable
from rankstream.features import spec
from rankstream.pb.ranker_pb2 import RankReply
from rankstream.ports import Scores
from rankstream.testing import FakeModel
from services.ranker.settings import RankerSettings
from tests.services.ranker.conftest import CHAMPION_WEIGHTS, Channels, Rig, recommend


class Slow(FakeModel):
    """Takes as long as it is told to, by the rig's clock."""

    takes_s = 0.0
    rig: Rig

    def score(self, features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Scores:
        self.rig.clock_s += self.takes_s
        return super().score(features)


async def load(rig: Rig, alias: str, model: FakeModel) -> None:
    rig.loaded[f"/{model.model_id}"] = model
    await rig.point(f"ranker/{alias}", model.model_id)


def broken(model_id: str = "m2") -> FakeModel:
    return FakeModel(np.full(spec.WIDTH, np.nan, np.float32), model_id=model_id)


@pytest.fixture
async def canaried(settings: RankerSettings) -> Rig:
    """Half of the requests to the canary m2, the other half to its control m1."""
    rig = Rig(settings.model_copy(update={"canary_alias": "next", "canary_percent": 50.0}))
    await rig.serve_model("champion", "m1")
    return rig


async def answers(rig: Rig, count: int, prefix: str = "r") -> list[RankReply]:
    return [await recommend(rig, request_id=f"{prefix}{n}") for n in range(count)]


async def test_it_answers_its_share_and_as_many_are_its_control(settings: RankerSettings) -> None:
    rig = Rig(settings.model_copy(update={"canary_alias": "next", "canary_percent": 20.0}))
    await rig.serve_model("champion", "m1")
    await rig.serve_model("next", "m2")

    models = Counter(reply.model_id for reply in await answers(rig, 300))

    status = rig.ranker.canary()
    counted = status["answers"]
    assert isinstance(counted, dict)
    assert models["m2"] == counted["canary"]
    assert 35 <= counted["canary"] <= 85
    assert 35 <= counted["control"] <= 85
    labels = {"arm": "canary", "model_id": "m2", "outcome": "ok"}
    assert rig.count("ranker_canary_answers_total", **labels) == models["m2"]
    assert status["running"] is True


async def test_an_answer_that_it_fails_is_given_by_the_champion(canaried: Rig) -> None:
    await load(canaried, "next", broken())

    replies = await answers(canaried, 10)

    assert {reply.model_id for reply in replies} == {"m1"}
    failed = [reply for reply in replies if list(reply.degraded) == ["canary_failed"]]
    assert 0 < len(failed) < 10
    labels = {"arm": "canary", "model_id": "m2", "outcome": "not_finite"}
    assert canaried.count("ranker_canary_answers_total", **labels) == len(failed)


async def test_it_is_taken_off_after_failures_that_its_control_has_not(canaried: Rig) -> None:
    await load(canaried, "next", broken())

    replies = await answers(canaried, 60)

    failed = sum(list(reply.degraded) == ["canary_failed"] for reply in replies)
    status = canaried.ranker.canary()
    assert failed == 14
    assert status["running"] is False
    assert str(status["rolled_back"]).startswith("14 failures of 14 answers, the control 0 of")
    assert canaried.count("ranker_canary_rolled_back", model_id="m2") == 1
    assert canaried.count("ranker_canary_evidence", model_id="m2") > np.log(1_000)


async def test_slow_scoring_is_a_failure(canaried: Rig) -> None:
    slow = Slow(CHAMPION_WEIGHTS, model_id="m2")
    slow.rig, slow.takes_s = canaried, 0.03
    await load(canaried, "next", slow)

    replies = await answers(canaried, 60)

    assert sum(reply.model_id == "m2" for reply in replies) == 14
    assert str(canaried.ranker.canary()["rolled_back"]).endswith("the last one: slow")


async def test_a_control_that_is_as_slow_keeps_it_on(canaried: Rig) -> None:
    for alias, name in (("champion", "m3"), ("next", "m2")):
        slow = Slow(CHAMPION_WEIGHTS, model_id=name)
        slow.rig, slow.takes_s = canaried, 0.03
        await load(canaried, alias, slow)

    await answers(canaried, 120)

    assert canaried.ranker.canary()["running"] is True


async def test_another_version_begins_anew(canaried: Rig) -> None:
    await load(canaried, "next", broken())
    await answers(canaried, 60)

    await canaried.serve_model("next", "m3")
    replies = await answers(canaried, 20, "later-")

    assert "m3" in {reply.model_id for reply in replies}
    assert canaried.ranker.canary()["model_id"] == "m3"


async def test_a_champion_that_fails_is_no_matter_of_the_canary(canaried: Rig) -> None:
    await load(canaried, "champion", broken("m9"))
    await load(canaried, "next", broken())

    with pytest.raises(DependencyUnavailable, match="model m9 gave"):
        await answers(canaried, 10)


async def test_experiments_and_previews_are_not_given_to_it(canaried: Rig) -> None:
    await canaried.serve_model("next", "m2")
    previews = [await recommend(canaried, request_id=new_id(), preview=True) for _ in range(20)]
    await canaried.serve_model("challenger", "m4")
    await canaried.define()

    replies = await answers(canaried, 20)

    assert {reply.model_id for reply in previews} == {"m1"}
    assert {reply.model_id for reply in replies} == {"m4"}


async def test_without_an_alias_nothing_is_a_canary(rig: Rig, channels: Channels) -> None:
    reply: httpx.Response = await channels.http.get("/v1/canary")

    assert reply.json() == {"alias": "", "running": False}
