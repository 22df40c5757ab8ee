"""Read a whole topic of the run's broker, and where it ends."""

from __future__ import annotations

import asyncio

from confluent_kafka import Consumer, TopicPartition

from rankstream.adapters.kafka import Record
from rankstream.adapters.log_range import PartitionLog
from rankstream.topics import Topic

TIMEOUT_S = 10.0


def read_topic(bootstrap: str, topic: Topic) -> dict[int, list[Record]]:
    """Every record of a topic, by partition."""

    async def read(partition: int) -> list[Record]:
        log = PartitionLog(bootstrap, topic.name, partition, client_id="chaos")
        return [record async for portion in log.read(0) for record in portion]

    async def every() -> dict[int, list[Record]]:
        return {partition: await read(partition) for partition in range(topic.partitions)}

    return asyncio.run(every())


class Ends:
    """Where partitions end, over one connection."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "chaos-ends", "log_level": 0}
        )

    def of(self, topic: Topic) -> list[int]:
        """Offset behind the last record of each partition."""
        return [
            self._consumer.get_watermark_offsets(
                TopicPartition(topic.name, partition), timeout=TIMEOUT_S
            )[1]
            for partition in range(topic.partitions)
        ]

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
