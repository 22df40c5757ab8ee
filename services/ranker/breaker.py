"""A circuit breaker: while a dependency hangs, nobody waits for it but one probe at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from rankstream import metrics
from rankstream.adapters.metrics import Metrics

LATE_SHARE: Final = 0.9
"""A call that takes this much of its deadline is late, however it ends."""


class CircuitOpen(Exception):
    """The dependency was late again and again; it was not asked."""


class Breaker:
    """Opens after `late_max` late calls in a row, for `open_s`; then one call probes.

    Calls that one pause has made late are one: the next that counts begins when that has ended.
    A probe in time closes it, a late one opens it for `open_s` again. What fails at once is not
    late: it costs nobody anything, and is heard to work again without delay.
    Source: Nygard, "Release It!", 2007, "Circuit Breaker".
    """

    def __init__(
        self,
        dependency: str,
        *,
        timeout_s: float,
        late_max: int,
        open_s: float,
        clock_s: Callable[[], float],
        metrics_of: Metrics,
    ) -> None:
        self._dependency = dependency
        self._late_s = timeout_s * LATE_SHARE
        self._late_max = late_max
        self._open_s = open_s
        self._clock_s = clock_s
        self._late = 0  # in a row
        self._counted_s = -math.inf  # when the last of them ended
        self._open_until_s: float | None = None  # None: closed
        self._probing = False
        self._gauge = metrics_of.gauge(metrics.RANKER_CIRCUIT_OPEN).labels(dependency)
        self._gauge.set(0)

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises: CircuitOpen, before the call is made."""
        start_s = self._clock_s()
        probe = self._open_until_s is not None
        if self._open_until_s is not None:
            if self._probing or start_s < self._open_until_s:
                raise CircuitOpen(f"{self._dependency} does not answer in time, so it is not asked")
            self._probing = True
        cancelled = False
        try:
            yield
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            if probe:
                self._probing = False
            late = self._clock_s() - start_s >= self._late_s
            # A caller that left early says nothing; neither does a call from before it opened.
            if (late or not cancelled) and probe is (self._open_until_s is not None):
                self._judge(late, start_s)

    def _judge(self, late: bool, start_s: float) -> None:
        if not late:
            self._late = 0
        elif start_s >= self._counted_s:
            self._late, self._counted_s = self._late + 1, self._clock_s()
        was_open = self._open_until_s is not None
        is_open = late and (was_open or self._late >= self._late_max)
        self._open_until_s = self._clock_s() + self._open_s if is_open else None
        if is_open is not was_open:
            self._gauge.set(is_open)
            event = "circuit_opened" if is_open else "circuit_closed"
            structlog.get_logger().warning(event, dependency=self._dependency)
