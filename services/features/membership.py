"""Faust's membership of the group, formed anew when it has gone wrong.

Two ways were seen. A group that forms while a broker is coming back can be led by a member whose
metadata has no topics: it assigns nothing to anybody, and stays so for minutes. And a rebalance at
the wrong moment can crash Faust's consumer. Both end with a new member, in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from services.features.app import APP_ID, FaustFlow, build_app
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from services.features.workers import Workers

CHECK_EVERY_S: Final = 0.5
# Nothing assigned for so long: ask the broker whether anybody has something.
EMPTY_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 1.0
CRASHES_MAX: Final = 5
CRASHES_WITHIN_S: Final = 60.0


class Membership:
    """Keeps this worker a member of the group while `run` runs."""

    def __init__(
        self, settings: FeaturesSettings, workers: Workers, flow: FaustFlow, measures: Measures
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._flow = flow
        self._measures = measures
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Be a member until a worker fails.

        Raises: what a worker failed with, or Faust if it crashes again and again.
        """
        crashes: deque[float] = deque(maxlen=CRASHES_MAX)
        while not self._workers.failed.done():
            app = build_app(self._settings, self._workers, self._flow, asyncio.get_running_loop())
            await app.start()
            reason = await self._watch()
            if not reason:
                break
            crashes.append(time.monotonic())
            if len(crashes) == CRASHES_MAX and crashes[-1] - crashes[0] < CRASHES_WITHIN_S:
                raise app.crash_reason or RuntimeError(reason)
            self._measures.rejoins.inc()
            self._log.warning("membership_renewed", reason=reason)
            await self.leave()
            await asyncio.sleep(RETRY_S)
        self._workers.failed.result()

    async def _watch(self) -> str:
        """Why there must be another member; empty if a worker has failed."""
        workers, since_s = self._workers, time.monotonic()
        while not workers.failed.done():
            app = self._flow.app
            assert app is not None
            if app.crash_reason is not None:
                return f"Faust crashed: {app.crash_reason!r}"
            workers.measure(self._flow.highwater)
            if workers.owned:
                since_s = time.monotonic()
            elif time.monotonic() - since_s > EMPTY_S:
                if await group_is_idle(self._settings.kafka_url, APP_ID):
                    return "the group has assigned no partition to anybody"
                since_s = time.monotonic()
            await asyncio.wait((workers.failed,), timeout=CHECK_EVERY_S)
        return ""

    async def leave(self) -> None:
        """Finish what is in hand and leave the group."""
        await self._workers.release()
        if self._flow.app is not None:
            await self._flow.app.stop()


async def group_is_idle(kafka_url: str, group_id: str) -> bool:
    """Whether a group is stable, and none of its members has a partition."""
    return await asyncio.to_thread(_is_idle, kafka_url, group_id)


def _is_idle(kafka_url: str, group_id: str) -> bool:
    admin = AdminClient({"bootstrap.servers": kafka_url, "log_level": 3})
    try:
        asked = admin.describe_consumer_groups([group_id], request_timeout=ANSWER_TIMEOUT_S)
        group = asked[group_id].result()
    except KafkaException as error:
        structlog.get_logger().warning("group_unknown", reason=str(error))
        return False
    return works_for_nobody(group.state, [m.assignment.topic_partitions for m in group.members])


def works_for_nobody(state: ConsumerGroupState, assigned: Sequence[Sequence[object]]) -> bool:
    """Whether a group has members, is stable, and has assigned nothing to any of them."""
    return state is ConsumerGroupState.STABLE and bool(assigned) and not any(assigned)
