"""When a request may begin: at once while none is being answered; else in turn, or it is shed.

A loop that is busy takes one new call of gRPC in several turns. So under overload calls wait
unseen until their deadlines have passed, and what has begun slows down all else that has. Here a
request that finds another under way waits, and those that wait begin after turns of the loop that
were short and brought no other one: by then all that has come is seen, and how long a request has
waited says how far the core is behind.

First come, first served while the first has waited for less than half of what it may; then the
newest goes first, which still has time, and who has waited for too long is refused. Nobody may wait
for more than half of its deadline: what began later would hardly be answered in time.
Source: Maurer, "Fail at Scale", ACM Queue 2015 (adaptive LIFO, controlled delay).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from rankstream.errors import Overloaded

WAITING_MAX: Final = 1_000
TURN_S: Final = 0.0003
"""A longer turn of the loop has done a part of an answer."""
QUIET_TURNS: Final = 8
"""A call that gRPC has received reaches its handler in fewer turns."""
ACCEPT_S: Final = 0.02
"""For so long new calls may keep others from beginning."""


class Admission:
    """The queue in front of a process's answers; `running` says how many are under way.

    `waited_s` is told how long each request that begins has waited.
    """

    def __init__(
        self,
        *,
        wait_s: float,
        clock_s: Callable[[], float],
        running: Callable[[], int],
        waited_s: Callable[[float], None],
    ) -> None:
        self._wait_s = wait_s
        self._running = running
        self._clock_s = clock_s
        self._waited_s = waited_s
        # Since when, how long at most, and who: in the order of their coming.
        self._waiting: deque[tuple[float, float, asyncio.Future[None]]] = deque()
        self._ticking = False
        self._quiet = 0  # turns in a row
        self._heard = False  # whether one has come since the last turn
        self._turn_s = 0.0  # when the last turn ended
        self._worked_s = 0.0  # when the loop last did a part of an answer, or one began

    async def turn(self, left_s: float | None = None) -> None:
        """Return when the caller may begin; `left_s` until its deadline. Raises: Overloaded."""
        if not self._waiting and not self._running():
            self._waited_s(0.0)
            return
        if len(self._waiting) >= WAITING_MAX:
            raise _overloaded(f"{WAITING_MAX} requests wait already (limit {WAITING_MAX})")
        now_s, turn = self._clock_s(), asyncio.get_running_loop().create_future()
        limit_s = self._wait_s if left_s is None else min(self._wait_s, left_s / 2)
        self._waiting.append((now_s, limit_s, turn))
        self._heard = True
        if not self._ticking:
            self._ticking, self._turn_s, self._worked_s = True, now_s, now_s
            asyncio.get_running_loop().call_soon(self._tick)
        await turn
        self._waited_s(self._clock_s() - now_s)

    def _tick(self) -> None:
        """Once in every turn of the loop while somebody waits."""
        now_s = self._clock_s()
        if now_s - self._turn_s > TURN_S:
            self._quiet, self._worked_s = 0, now_s
        else:
            self._quiet = 0 if self._heard else self._quiet + 1
        self._heard = False
        if self._quiet >= QUIET_TURNS or now_s - self._worked_s > ACCEPT_S:
            self._refuse_late(now_s)
            self._begin_next(now_s)
            self._quiet, self._worked_s = 0, now_s
        self._ticking = bool(self._waiting)
        if self._ticking:
            self._turn_s = self._clock_s()
            asyncio.get_running_loop().call_soon(self._tick)

    def _refuse_late(self, now_s: float) -> None:
        waiting = self._waiting
        while waiting and now_s - waiting[0][0] > waiting[0][1]:
            since_s, limit_s, turn = waiting.popleft()
            if not turn.done():
                waited_ms, limit_ms = (now_s - since_s) * 1000, limit_s * 1000
                why = f"it has waited for {waited_ms:.0f} ms (limit {limit_ms:g} ms)"
                turn.set_exception(_overloaded(why))

    def _begin_next(self, now_s: float) -> None:
        waiting = self._waiting
        while waiting:
            since_s, limit_s, _ = waiting[0]
            fair = now_s - since_s < limit_s / 2
            _, _, turn = waiting.popleft() if fair else waiting.pop()
            if not turn.done():  # else its caller has left
                turn.set_result(None)
                return


def _overloaded(why: str) -> Overloaded:
    return Overloaded(
        f"overloaded: more requests come than can be answered: {why}. Not answered. Try again"
        " later, or run more replicas."
    )
