"""How many records a consumer group is behind, as the brokers say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from rankstream.errors import DependencyUnavailable

TIMEOUT_S = 10.0


class LogEnds:
    """Asks the brokers where groups and topics stand. Joins no group and reads no record.

    A client per group, of its id: librdkafka's admin client ends the process if it asks a broker
    for a group's offsets that has just ceased to coordinate it, as when brokers start.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        # The client wants a group id even of one that only asks where topics end.
        self._asker = self._client("monitor-ends")
        self._members: dict[str, Consumer] = {}

    def _client(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "log_level": 3,
            }
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
        for client in (self._asker, *self._members.values()):
            await asyncio.to_thread(client.close)

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

    def _member(self, group: str) -> Consumer:
        if group not in self._members:
            self._members[group] = self._client(group)
        return self._members[group]

    def _committed(self, group: str) -> list[TopicPartition]:
        """Of all partitions; a negative offset where the group has committed none."""
        client = self._member(group)
        known = client.list_topics(timeout=TIMEOUT_S).topics
        asked = [
            TopicPartition(name, partition)
            for name, topic in known.items()
            if not name.startswith("__")
            for partition in topic.partitions
        ]
        return _without_errors(client.committed(asked, timeout=TIMEOUT_S))

    def _offsets_at(self, names: tuple[str, ...], time_ms: int) -> dict[tuple[str, int], int]:
        try:
            known = self._asker.list_topics(timeout=TIMEOUT_S).topics
            asked = [
                TopicPartition(name, partition, time_ms)
                for name in names
                if name in known
                for partition in known[name].partitions
            ]
            found = _without_errors(self._asker.offsets_for_times(asked, timeout=TIMEOUT_S))
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


def _without_errors(found: Iterable[TopicPartition]) -> list[TopicPartition]:
    """What was found, if for every partition: an error has a negative offset, as "none" has."""
    places = list(found)
    for place in places:
        if place.error is not None:
            raise KafkaException(place.error)
    return places
