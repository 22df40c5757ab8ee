"""Who begins when more requests come than can be answered."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rankstream.adapters.admission import QUIET_TURNS, WAITING_MAX, Admission
from rankstream.errors import Overloaded

WAIT_S = 0.05


class Core:
    """A core whose clock says what the test says."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.running = 1
        self.waited_s: list[float] = []
        self.admission = Admission(
            wait_s=WAIT_S,
            clock_s=lambda: self.now_s,
            running=lambda: self.running,
            waited_s=self.waited_s.append,
        )
        self.begun: list[str] = []
        self.refused: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str, left_s: float | None = None) -> None:
        """Requests that come in this turn."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._ask(name, left_s))
        await asyncio.sleep(0)

    async def _ask(self, name: str, left_s: float | None) -> None:
        try:
            await self.admission.turn(left_s)
        except Overloaded:
            self.refused.append(name)
        else:
            self.begun.append(name)

    async def turns(self, turns: int) -> None:
        """Short turns of the loop."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def until_begun(self, begun: int) -> None:
        """Short turns until so many have begun."""
        for _ in range(100 * QUIET_TURNS):
            if len(self.begun) == begun:
                return
            await asyncio.sleep(0)
        raise AssertionError(self.begun)


async def test_one_begins_at_once_while_none_is_under_way() -> None:
    core = Core()
    core.running = 0

    with pytest.raises(StopIteration):  # it returns without a turn of the loop
        core.admission.turn().send(None)
    assert core.waited_s == [0.0]


async def test_nobody_passes_those_who_wait() -> None:
    core = Core()

    await core.come("a")
    core.running = 0
    await core.come("b")
    await core.until_begun(2)

    assert core.begun == ["a", "b"]


async def test_one_begins_after_quiet_turns() -> None:
    core = Core()

    await core.come("a")
    await core.turns(QUIET_TURNS - 2)
    too_early = list(core.begun)
    await core.until_begun(1)

    assert too_early == []


async def test_nobody_begins_while_the_loop_is_at_work() -> None:
    core = Core()

    await core.come("a")
    for _ in range(5 * QUIET_TURNS):
        core.now_s += 0.001
        await core.turns(1)

    assert core.begun == []


async def test_first_come_is_first_served_while_nobody_has_waited_long() -> None:
    core = Core()

    await core.come("a", "b", "c")
    await core.until_begun(3)

    assert core.begun == ["a", "b", "c"]


async def test_the_newest_goes_first_once_the_oldest_has_waited_long() -> None:
    core = Core()

    await core.come("a", "b")
    core.now_s += WAIT_S / 2
    await core.come("c")
    await core.until_begun(1)

    assert core.begun == ["c"]
    await core.until_begun(3)
    assert core.refused == []


async def test_who_waits_for_too_long_is_refused_and_the_rest_is_not() -> None:
    core = Core()

    await core.come("a", "b")
    core.now_s += WAIT_S + 0.001
    await core.come("c")
    await core.until_begun(1)

    assert (core.begun, core.refused) == (["c"], ["a", "b"])


async def test_nobody_waits_for_more_than_half_of_its_deadline() -> None:
    core = Core()

    await core.come("a", left_s=0.02)
    core.now_s += 0.011
    await core.come("b")
    await core.until_begun(1)

    assert (core.begun, core.refused) == (["b"], ["a"])


async def test_new_requests_do_not_keep_others_waiting_for_ever() -> None:
    core = Core()

    for number in range(120):
        core.now_s += 0.0002
        await core.come(f"r{number}")

    assert len(core.begun) >= 1
    for task in core.tasks.values():
        task.cancel()


async def test_a_caller_that_has_left_takes_no_turn() -> None:
    core = Core()

    await core.come("a", "b")
    core.tasks["a"].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await core.tasks["a"]
    await core.until_begun(1)

    assert core.begun == ["b"]


async def test_the_wait_of_those_that_begin_is_told_and_of_no_others() -> None:
    core = Core()

    await core.come("late", "left")
    core.now_s += 0.01
    await core.come("a")
    core.tasks["left"].cancel()
    core.now_s += WAIT_S - 0.005
    await core.until_begun(1)

    assert (core.begun, core.refused) == (["a"], ["late"])
    assert core.waited_s == [pytest.approx(WAIT_S - 0.005)]


async def test_a_full_queue_refuses_at_once() -> None:
    core = Core()

    await core.come(*map(str, range(WAITING_MAX)))
    with pytest.raises(Overloaded, match="requests wait already"):
        await core.admission.turn()

    assert core.refused == []
    for task in core.tasks.values():
        task.cancel()
