"""How many partitions the cluster has, and that they agree with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from rankstream import topics
from rankstream.adapters.kafka_client import LIBRARY_LOG_LEVEL, METADATA_TIMEOUT_S, unavailable
from rankstream.errors import Conflict, DependencyUnavailable

BY_USER: Final = (topics.EVENTS, topics.LABELS, topics.SESSIONS)
BY_ITEM: Final = (topics.FEATURE_UPDATES, topics.ITEMS)


@dataclass(frozen=True)
class Partitions:
    """Of the topics by user, and of those by item, category and so on."""

    users: int
    items: int

    def __str__(self) -> str:
        return f"{topics.EVENTS.name}={self.users} {topics.FEATURE_UPDATES.name}={self.items}"


def read_partitions(kafka_url: str) -> Partitions:
    """What the cluster has.

    Raises:
        Conflict: topics that must have as many partitions as each other do not.
        DependencyUnavailable: the cluster does not answer, or lacks one of them.
    """
    return agreed(kafka_url, existing(kafka_url))


def existing(kafka_url: str) -> dict[str, int]:
    """Partitions of every topic in the cluster. Raises: DependencyUnavailable."""
    admin = AdminClient({"bootstrap.servers": kafka_url, "log_level": LIBRARY_LOG_LEVEL})
    try:
        found = admin.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        raise unavailable(kafka_url, error.args[0]) from None
    return {name: len(topic.partitions) for name, topic in found.items()}


def agreed(kafka_url: str, counts: Mapping[str, int]) -> Partitions:
    """The counts of the two rows of topics. Raises: as read_partitions."""
    return Partitions(_one(kafka_url, counts, BY_USER), _one(kafka_url, counts, BY_ITEM))


def _one(kafka_url: str, counts: Mapping[str, int], row: Sequence[topics.Topic]) -> int:
    missing = [topic.name for topic in row if topic.name not in counts]
    if missing:
        raise DependencyUnavailable(
            f"dependency_unavailable: Kafka at {kafka_url} has no topic {', '.join(missing)}."
            " Nothing was done. Create the topics and try again."
        )
    different = {counts[topic.name] for topic in row}
    if len(different) > 1:
        told = ", ".join(f"{topic.name} has {counts[topic.name]}" for topic in row)
        raise Conflict(
            f"conflict: {told} partitions; they must have as many as each other. Nothing was done."
            " Keys have moved between partitions: see docs/runbook.md#more-partitions."
        )
    return different.pop()
