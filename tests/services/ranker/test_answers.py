"""Answers are kept: a repeated request gets the same one."""

from __future__ import annotations

import asyncio

import pytest

from rankstream.errors import Conflict
from tests.services.ranker.conftest import Rig, recommend


async def test_a_repeated_request_gets_the_same_answer_and_one_record(rig: Rig) -> None:
    first = await recommend(rig, request_id="r1", n=3)
    at_once = await recommend(rig, request_id="r1", n=3)
    await rig.slates()
    later = await recommend(rig, request_id="r1", n=3)

    assert first == at_once == later
    assert len(await rig.slates()) == 1


async def test_a_request_id_of_another_user_is_a_conflict(rig: Rig) -> None:
    await recommend(rig, request_id="r1")

    with pytest.raises(Conflict, match="belongs to an answer for another user"):
        await recommend(rig, "u2", request_id="r1")


async def test_a_request_id_that_is_being_answered_is_a_conflict(rig: Rig) -> None:
    rig.retrieval.gate = asyncio.Event()
    first = asyncio.create_task(recommend(rig, request_id="r1"))
    while not rig.retrieval.asked:
        await asyncio.sleep(0)

    with pytest.raises(Conflict, match="is being answered now"):
        await recommend(rig, request_id="r1")

    rig.retrieval.gate.set()
    assert (await first).request_id == "r1"


async def test_answers_go_on_when_they_cannot_be_kept(rig: Rig) -> None:
    rig.kept.fails = True

    reply = await recommend(rig, request_id="r1")

    assert reply.request_id == "r1"
    assert len(await rig.slates()) == 1
    assert rig.count("ranker_degraded_total", reason="answers_unavailable") == 1
    assert rig.count("ranker_log_records_total", topic="answers", fate="lost") == 1
