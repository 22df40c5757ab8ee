"""Work behind answers: of the lowest priority, in order, and it says what went wrong."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from rankstream.adapters.behind import NICENESS, loaded_behind


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_only_the_thread_that_loads_gives_way() -> None:
    mine = _niceness()

    assert await loaded_behind(_niceness) == min(mine + NICENESS, NICENESS)
    assert _niceness() == mine


async def test_loads_come_one_after_the_other_while_the_loop_goes_on() -> None:
    gate, order = threading.Event(), list[str]()

    def load(name: str, *, waits: bool) -> str:
        if waits:
            gate.wait(10)
        order.append(name)
        return name

    first = asyncio.create_task(loaded_behind(load, "first", waits=True))
    second = asyncio.create_task(loaded_behind(load, "second", waits=False))
    await asyncio.sleep(0.05)
    assert order == []
    gate.set()

    assert (await first, await second) == ("first", "second")
    assert order == ["first", "second"]


async def test_what_goes_wrong_is_raised_where_it_is_awaited() -> None:
    def load() -> None:
        raise ValueError("half-written")

    with pytest.raises(ValueError, match="half-written"):
        await loaded_behind(load)
