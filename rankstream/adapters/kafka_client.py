"""What every client of Kafka here shares: timeouts, log level, and how its errors are named."""

from __future__ import annotations

from confluent_kafka import KafkaError

from rankstream.errors import DependencyUnavailable

METADATA_TIMEOUT_S = 10.0
# Critical only: librdkafka prints each failed connection, which our errors already say.
LIBRARY_LOG_LEVEL = 2
# What a restart of the broker or a change of leader leaves behind: the client goes on by itself.
PASSING = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
)


def unavailable(bootstrap: str, error: KafkaError) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"dependency_unavailable: Kafka at {bootstrap}: {error.str()} ({error.name()})."
        " Nothing was done. Try again."
    )
