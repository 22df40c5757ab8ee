"""The number of partitions that all state here was made with. Another number is another log.

With other partitions a user's events come to another worker, whose state knows nothing of them,
and no record says so. Hence the number is kept beside the state, and checked at the start.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from rankstream.adapters.partitions import Partitions, read_partitions
from rankstream.adapters.redis_link import RedisLink
from rankstream.adapters.redis_rows import PROJECT, command
from rankstream.errors import Conflict, DependencyUnavailable
from services.features.settings import FeaturesSettings

RETRY_S: Final = 1.0
KEY: Final = f"{PROJECT}:partitions".encode()


async def claim_partitions(settings: FeaturesSettings) -> Partitions:
    """How many partitions the log has; noted in Redis by the first worker ever.

    An outage of Kafka or Redis is waited out.

    Raises: Conflict: the rows in Redis were made from a log with other partitions, or the cluster's
        topics contradict each other. Nothing was folded.
    """
    while True:
        try:
            found = await asyncio.to_thread(read_partitions, settings.kafka_url)
            noted = await _noted(settings, str(found).encode())
            break
        except DependencyUnavailable as error:
            structlog.get_logger().warning("partitions_unknown", reason=str(error))
            await asyncio.sleep(RETRY_S)
    if noted != str(found):
        raise Conflict(
            f"conflict: the log has {found} partitions, the rows in Redis were made with {noted}."
            " Nothing was folded. Partitions were added to a topic, or this is another log: see"
            " docs/runbook.md#more-partitions."
        )
    return found


async def _noted(settings: FeaturesSettings, value: bytes) -> str:
    link = RedisLink(settings.redis_url, timeout_s=settings.redis_timeout_s, reconnect=False)
    try:
        packed = command(b"SET", KEY, value, b"NX") + command(b"GET", KEY)
        _, noted = await link.request(packed, 2)
    finally:
        await link.close()
    if not isinstance(noted, bytes):
        raise DependencyUnavailable(
            f"dependency_unavailable: Redis answered {noted!r} for {KEY.decode()}. Nothing was"
            " folded. Mend Redis."
        )
    return noted.decode()
