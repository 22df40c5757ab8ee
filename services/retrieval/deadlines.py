"""Which calls are worth an answer: those that it can reach before their deadlines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from rankstream.errors import Overloaded

ANSWERS_LEFT: Final = 4.0
"""A call that has less time than so many answers of the usual length is refused."""
FIRST_S: Final = 0.0001
STEP: Final = 1.02
"""An answer moves the estimate of the median by so much, however far from it it was."""
REFUSED_STEP: Final = STEP**0.02
"""Fifty refusals weigh as much as one answer, so that some for each answer hardly move it."""

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Deadlines:
    """What an answer usually takes, the median of late, and the time that a call has left.

    An overloaded process then spends its time on what still reaches somebody, instead of on answers
    that are all a little late. Each refusal makes the estimate a little smaller: where answers have
    become faster, or as long as half a deadline, calls must be let through for it to be noticed.
    Source of the estimate: Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating
    Quantiles", 2013.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._usual_s = FIRST_S

    def check(self, left_s: float | None) -> None:
        """Return if there is time for an answer. Raises: Overloaded."""
        needed_s = ANSWERS_LEFT * self._usual_s
        if left_s is None or left_s >= needed_s:
            return
        self._usual_s /= REFUSED_STEP
        raise Overloaded(
            f"overloaded: {1_000 * left_s:.1f} ms are left of the deadline (limit"
            f" {1_000 * needed_s:.1f} ms, {ANSWERS_LEFT:g} answers). Nothing was retrieved. Allow"
            " more time, or run more replicas."
        )

    def timed(
        self, answer: Callable[[Request], Awaitable[Reply]]
    ) -> Callable[[Request], Awaitable[Reply]]:
        """The same, measured; what it refuses is not."""

        async def measured(request: Request) -> Reply:
            start_s = self._clock_s()
            reply = await answer(request)
            longer = self._clock_s() - start_s > self._usual_s
            self._usual_s *= STEP if longer else 1 / STEP
            return reply

        return measured
