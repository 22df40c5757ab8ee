"""Append the history and the traffic, never far ahead of what the workers have committed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from pipelines.datasets.history import batches
from pipelines.datasets.movielens import history, read_ratings
from rankstream import topics
from rankstream.contracts.codec import encode_item
from tests.chaos.traffic import HISTORY_UNTIL_MS, Produced, Traffic, tick

# Share of the log that may wait for the workers: live at most times, a backlog after a fault.
AHEAD: Final = 0.1
HISTORY_SHARE_MAX: Final = 1 / 3
OUTAGE_MS_MAX: Final = 300_000
WAIT_S: Final = 0.02


def with_history(made: Traffic, folder: Path) -> Traffic:
    """The same after the MovieLens history, or after its first part: at most a third as much."""
    found = history(read_ratings(folder), until_ms=HISTORY_UNTIL_MS)
    records, room = [], round(made.events * HISTORY_SHARE_MAX)
    for batch in batches(found.columns, partitions=topics.EVENTS.partitions):
        room -= batch.events
        if room < 0:
            break
        records.append(Produced(batch.partition, batch.record, batch.events))
    items = [(item.item_id, encode_item(item.update())) for item in found.items]
    return Traffic([*records, *made.records], [*items, *made.items])


class Feed:
    """Appends in a thread of its own; order within a partition is kept, each record is once."""

    def __init__(self, bootstrap: str, made: Traffic) -> None:
        self._made = made
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.timeout.ms": OUTAGE_MS_MAX,
                "log_level": 0,
            }
        )
        self._committed = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self.errors: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def committed(self, share: float) -> None:
        """Hear which share of the records is committed."""
        self._committed = share

    @property
    def ended(self) -> bool:
        """Whether everything is appended, or could not be."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Give up."""
        self._stopping.set()
        self._thread.join()

    def tick_everywhere(self, time_ms: int) -> None:
        """Say in every partition of `events` that time has come so far."""
        for partition in range(topics.EVENTS.partitions):
            self._append(topics.EVENTS.name, tick(partition, time_ms), partition)
        self._producer.flush()

    def _run(self) -> None:
        records, items = self._made.records, self._made.items
        described = 0
        for number, record in enumerate(records):
            share = number / len(records)
            while share > self._committed + AHEAD and not self._stopping.is_set():
                self._producer.poll(WAIT_S)
            if self._stopping.is_set():
                return
            described = self._describe(items, described, round(len(items) * 2 * share))
            self._append(topics.EVENTS.name, record.value, record.partition)
        self._describe(items, described, len(items))
        self._producer.flush()

    def _describe(self, items: Sequence[tuple[str, bytes]], start: int, end: int) -> int:
        """All metadata goes out in the first half of the run."""
        for key, value in items[start:end]:
            self._append(topics.ITEMS.name, value, key=key.encode())
        return max(start, min(end, len(items)))

    def _append(self, topic: str, value: bytes, partition: int = -1, key: bytes = b"") -> None:
        while True:
            try:
                self._producer.produce(
                    topic, value, key or None, partition, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(WAIT_S)
            else:
                self._producer.poll(0)
                return

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.errors.append(error.str())
