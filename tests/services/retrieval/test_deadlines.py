"""Calls that cannot be answered in time are refused instead."""

from __future__ import annotations

import pytest

from rankstream.errors import Overloaded
from services.retrieval.deadlines import Deadlines

LEARNED = 300  # answers


class Core:
    """One that answers as fast as the test says, one call after the other."""

    def __init__(self, answer_s: float) -> None:
        self.now_s = 0.0
        self.answer_s = answer_s
        self.deadlines = Deadlines(lambda: self.now_s)
        self.ask = self.deadlines.timed(self._answer)

    async def _answer(self, request: str) -> str:
        self.now_s += self.answer_s
        return request

    async def learned(self) -> Core:
        for _ in range(LEARNED):
            await self.ask("r")
        return self


async def test_a_call_with_time_left_is_let_through_and_one_without_is_refused() -> None:
    core = await Core(0.002).learned()

    core.deadlines.check(None)
    core.deadlines.check(0.0085)
    with pytest.raises(Overloaded, match=r"7\.5 ms are left of the deadline \(limit [78]\."):
        core.deadlines.check(0.0075)


def test_the_first_calls_are_let_through() -> None:
    Core(0.002).deadlines.check(0.001)


async def test_under_overload_most_of_the_time_goes_into_answers_in_time() -> None:
    """Three times as many calls as can be answered; each is taken in the order of its coming."""
    answer_s, refusal_s, deadline_s, calls = 0.002, 0.0003, 0.08, 6_000
    core = await Core(answer_s).learned()
    began_s, good, late = core.now_s, 0, 0

    for number in range(calls):
        due_s = began_s + number * answer_s / 3
        core.now_s = max(core.now_s, due_s)
        left_s = due_s + deadline_s - core.now_s
        try:
            core.deadlines.check(left_s)
        except Overloaded:
            core.now_s += refusal_s
            continue
        await core.ask("r")
        good += core.now_s <= due_s + deadline_s
        late += core.now_s > due_s + deadline_s

    # What refusals leave of the time: (answer - 3 refusals) / (answer - refusal) = .65
    assert good * answer_s / (core.now_s - began_s) > 0.6
    assert late == 0


async def test_one_slow_answer_has_no_others_refused() -> None:
    core = await Core(0.002).learned()
    core.answer_s = 5.0
    await core.ask("slow")

    core.deadlines.check(0.009)


async def test_answers_that_are_slow_for_long_and_fast_again_are_found_to_be_fast() -> None:
    core = await Core(0.2).learned()
    core.answer_s = 0.002

    refused = 0
    while True:
        try:
            core.deadlines.check(0.08)
        except Overloaded:
            refused += 1
        else:
            break

    assert 0 < refused < 10_000
