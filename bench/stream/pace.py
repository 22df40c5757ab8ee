"""Append records at a steady rate, and remember when each was handed over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from confluent_kafka import KafkaError, Message, Producer

from bench.stream.errors import MeasurementFailed
from bench.stream.load import LoadRecord

LINGER_MS = 1


class Pacer:
    """Sends what is due whenever `step` is called, which should be every few milliseconds."""

    def __init__(
        self, kafka: str, topic: str, records: Iterator[LoadRecord], events_per_s: float
    ) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": kafka,
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": LINGER_MS,
                "log_level": 3,
            }
        )
        self._topic = topic
        self._records = records
        self._rate = events_per_s
        self._began_s = time.monotonic()
        self._events = 0
        self.last = b""  # the newest record of the load
        # (partition, offset, monotonic seconds at hand-over) of what Kafka has acknowledged.
        self.acknowledged: list[tuple[int, int, float]] = []

    @property
    def events(self) -> int:
        """Events handed over so far."""
        return self._events

    def step(self) -> bool:
        """Send what is due by now; False when the records have come to their end."""
        due = (time.monotonic() - self._began_s) * self._rate
        while self._events < due:
            record = next(self._records, None)
            if record is None:
                return False
            self.send(record)
            self._events += record.events
            self.last = record.value
        self._producer.poll(0)
        return True

    def send(self, record: LoadRecord) -> None:
        """Send one record now, outside the pace."""
        self._producer.produce(
            self._topic,
            record.value,
            partition=record.partition,
            on_delivery=partial(self._delivered, time.monotonic()),
        )

    def close(self) -> None:
        """Wait for the broker to have everything."""
        self._producer.flush(30)

    def _delivered(self, handed_over_s: float, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            raise MeasurementFailed(f"Kafka refused a record: {error.str()}")
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        self.acknowledged.append((partition, offset, handed_over_s))
