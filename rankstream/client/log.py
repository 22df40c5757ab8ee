"""Append events straight to the log, for producers that do without ingest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from rankstream import topics
from rankstream.contracts.codec import encode_batch, encode_item
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.events import Message as AnyEvent
from rankstream.contracts.ids import partition_of
from rankstream.errors import DependencyUnavailable, TooLarge

EVENTS_PER_RECORD = 500
EVENTS_PER_ROUND = 50_000
"""Encoded and in flight at once; the memory of a send is bounded by it."""

QUEUE_KB_MAX = 65_536
FLUSH_GRACE_S = 5.0

# topic, key, partition or None: by key, value, events
_Record = tuple[str, bytes | None, int | None, bytes, int]


class LogProducer:
    """Batches events by the partition of their user, appends the batches, and waits for the acks.

        with LogProducer("127.0.0.1:9092") as log:
            log.send(events)

    The more events a send has, the fewer records the stream has to read. Not for several threads.
    """

    def __init__(self, kafka_url: str, *, timeout_s: float = 10.0) -> None:
        self._kafka_url = kafka_url
        self._timeout_s = timeout_s
        self._partitions: int | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": kafka_url,
                "client.id": "rankstream-client",
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.max.bytes": topics.MAX_RECORD_BYTES,
                "queue.buffering.max.kbytes": QUEUE_KB_MAX,
                "message.timeout.ms": round(timeout_s * 1000),
                "log_level": 2,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is in flight."""
        self._producer.flush(self._timeout_s)

    def send(self, events: Iterable[AnyEvent]) -> int:
        """Append events and item updates; how many, once every in-sync replica has them.

        Events of one user keep their order. Sending again after an error is safe: an event_id
        counts once.

        Raises:
            TooLarge: an event is over the limit of a record; others may have been appended.
            DependencyUnavailable: no ack in time; the message says how many events have theirs.
        """
        left, sent = iter(events), 0
        while chunk := list(islice(left, EVENTS_PER_ROUND)):
            sent += self._round(self._records(chunk), sent)
        return sent

    def _records(self, events: Sequence[AnyEvent]) -> list[_Record]:
        by_partition: defaultdict[int, list[Event]] = defaultdict(list)
        records: list[_Record] = []
        for event in events:
            if isinstance(event, ItemUpdate):
                value = encode_item(event)
                _check_size(value)
                records.append((topics.ITEMS.name, event.item_id.encode(), None, value, 1))
            else:
                by_partition[partition_of(event.user_id, self._count())].append(event)
        for partition, own in by_partition.items():
            for value, count in _encoded(own):
                records.append((topics.EVENTS.name, None, partition, value, count))
        return records

    def _round(self, records: Sequence[_Record], before: int) -> int:
        acked = 0
        errors: list[KafkaError] = []

        def delivered(count: int) -> Callable[[KafkaError | None, Message], None]:
            def told(error: KafkaError | None, _message: Message) -> None:
                nonlocal acked
                if error is None:
                    acked += count
                else:
                    errors.append(error)

            return told

        for topic, key, partition, value, count in records:
            where = -1 if partition is None else partition
            while True:
                try:
                    self._producer.produce(topic, value, key, where, on_delivery=delivered(count))
                    break
                except BufferError:
                    # Full: room comes with acks, or with message.timeout.ms.
                    self._producer.poll(0.1)
            self._producer.poll(0)
        # The library looks for records that have timed out about once a second.
        self._producer.flush(self._timeout_s + FLUSH_GRACE_S)
        if acked < sum(record[-1] for record in records):
            late = KafkaError(KafkaError._MSG_TIMED_OUT)
            raise self._unavailable((errors or [late])[0], before + acked)
        return acked

    def _count(self) -> int:
        if self._partitions is None:
            try:
                found = self._producer.list_topics(topics.EVENTS.name, timeout=self._timeout_s)
            except KafkaException as error:
                raise self._unavailable(error.args[0], 0) from None
            topic = found.topics[topics.EVENTS.name]
            if topic.error is not None:
                raise self._unavailable(topic.error, 0)
            self._partitions = len(topic.partitions)
        return self._partitions

    def _unavailable(self, error: KafkaError, sent: int) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"dependency_unavailable: Kafka at {self._kafka_url}: {error.str()}. {sent} events are"
            " in the log, others may be. Send all of them again: an event_id counts once."
        )


def _encoded(events: Sequence[Event]) -> Iterator[tuple[bytes, int]]:
    """Records of at most EVENTS_PER_RECORD events, each within the limit of a record."""
    for first in range(0, len(events), EVENTS_PER_RECORD):
        yield from _fitting(events[first : first + EVENTS_PER_RECORD])


def _fitting(events: Sequence[Event]) -> Iterator[tuple[bytes, int]]:
    value = encode_batch(events)
    if len(value) <= topics.MAX_RECORD_BYTES or len(events) == 1:
        _check_size(value)
        yield value, len(events)
        return
    half = len(events) // 2
    yield from _fitting(events[:half])
    yield from _fitting(events[half:])


def _check_size(value: bytes) -> None:
    if len(value) > topics.MAX_RECORD_BYTES:
        raise TooLarge(
            f"too_large: one event of {len(value)} bytes (limit {topics.MAX_RECORD_BYTES})."
            " It and what follows was not sent. Shorten its texts."
        )
