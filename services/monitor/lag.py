"""How many records a consumer group is behind, as the brokers say."""

from __future__ import annotations

import asyncio

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from rankstream.errors import DependencyUnavailable

TIMEOUT_S = 10.0


class LogEnds:
    """Asks the brokers where groups and topics stand. Joins no group and reads no record."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
        # The client wants a group id even of one that only asks for offsets.
        self._asker = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "monitor-ends", "log_level": 3}
        )

    async def lag(self, groups: tuple[str, ...]) -> dict[tuple[str, str, int], int]:
        """(group, topic, partition) -> records not yet committed; a group that never committed
        is absent.

        Raises: DependencyUnavailable if the brokers do not answer in time.
        """
        return await asyncio.to_thread(self._lag, groups)

    async def offsets_at(self, names: tuple[str, ...], time_ms: int) -> dict[tuple[str, int], int]:
        """(topic, partition) -> offset of the first record appended at or after `time_ms`.

        Raises: DependencyUnavailable if the brokers do not answer in time.
        """
        return await asyncio.to_thread(self._offsets_at, names, time_ms)

    async def close(self) -> None:
        """Leave the cluster."""
        await asyncio.to_thread(self._asker.close)

    def _lag(self, groups: tuple[str, ...]) -> dict[tuple[str, str, int], int]:
        try:
            return {
                (group, place.topic, place.partition): max(0, self._end(place) - place.offset)
                for group in groups
                for place in self._committed(group)
                if place.offset >= 0
            }
        except KafkaException as error:
            raise self._unavailable(error) from None

    def _committed(self, group: str) -> list[TopicPartition]:
        futures = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S
        )
        return list(futures[group].result().topic_partitions)

    def _offsets_at(self, names: tuple[str, ...], time_ms: int) -> dict[tuple[str, int], int]:
        try:
            known = self._admin.list_topics(timeout=TIMEOUT_S).topics
            asked = [
                TopicPartition(name, partition, time_ms)
                for name in names
                if name in known
                for partition in known[name].partitions
            ]
            found = self._asker.offsets_for_times(asked, timeout=TIMEOUT_S)
            # An error of one partition also has a negative offset: its records would be passed by.
            for place in found:
                if place.error is not None:
                    raise KafkaException(place.error)
            return {
                # Negative: nothing was appended since.
                (place.topic, place.partition): (
                    place.offset if place.offset >= 0 else self._end(place)
                )
                for place in found
            }
        except KafkaException as error:
            raise self._unavailable(error) from None

    def _end(self, place: TopicPartition) -> int:
        where = TopicPartition(place.topic, place.partition)
        return self._asker.get_watermark_offsets(where, timeout=TIMEOUT_S)[1]

    def _unavailable(self, error: KafkaException) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"dependency_unavailable: Kafka at {self._bootstrap}: {error.args[0].str()}."
            " Offsets were not read. Try again."
        )
