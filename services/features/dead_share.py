"""What the service does once too much of the stream is refused: it stays up, and does nothing.

A process that ended would be started again by whoever supervises it, and each start would take
another window of poison before it ends. One that stays says in /readyz and in /metrics why it has
stopped, and goes on at the same record when a person restarts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from rankstream import metrics
from rankstream.adapters.dead_share import DeadShare
from rankstream.adapters.health import Health
from rankstream.adapters.metrics import Metrics
from rankstream.errors import TooManyDeadLetters

__all__ = ["CONSUMER", "DEAD_LETTERS", "DeadShare", "stay_stopped"]

DEAD_LETTERS: Final = "dead_letters"
CONSUMER: Final = "features"


async def stay_stopped(
    error: TooManyDeadLetters,
    *,
    health: Health,
    metrics_of: Metrics,
    let_go: Callable[[], Awaitable[None]],
) -> None:
    """Let go of the partitions, say why, and wait to be cancelled."""
    health.not_ready(DEAD_LETTERS, str(error))
    metrics_of.gauge(metrics.CONSUMER_STOPPED).labels(CONSUMER).set(1)
    structlog.get_logger().error("consumer_stopped", reason=str(error))
    await let_go()
    await asyncio.Event().wait()
