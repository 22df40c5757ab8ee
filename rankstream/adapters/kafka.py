"""The log: create its topics, append to it. Its reader is in log_reader.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from rankstream import topics
from rankstream.adapters.kafka_client import LIBRARY_LOG_LEVEL, METADATA_TIMEOUT_S, unavailable
from rankstream.adapters.log_reader import LogReader
from rankstream.adapters.partitions import agreed, existing
from rankstream.contracts.record import Record
from rankstream.errors import DependencyUnavailable, QueueFull, TooLarge

__all__ = ["METADATA_TIMEOUT_S", "EventProducer", "LogReader", "Record", "create_topics"]

QUEUE_RECORDS_MAX = 100_000
DELIVERY_TIMEOUT_S = 10.0


def create_topics(bootstrap: str) -> None:
    """Create the topics of `topics.ALL` that the cluster lacks; safe to call again.

    A cluster may have more partitions than topics.py says: see adapters/repartition.py.

    Raises:
        Conflict: topics that belong together differ in partitions; nothing is changed.
        DependencyUnavailable: the cluster does not answer, or refuses.
    """
    counts = existing(bootstrap)
    missing = [topic for topic in topics.ALL if topic.name not in counts]
    for topic in missing:
        counts[topic.name] = topic.partitions
    agreed(bootstrap, counts)
    if not missing:
        return
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": LIBRARY_LOG_LEVEL})
    wanted = [
        NewTopic(topic.name, num_partitions=topic.partitions, config=topic.config())
        for topic in missing
    ]
    for creation in admin.create_topics(wanted, request_timeout=METADATA_TIMEOUT_S).values():
        try:
            creation.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise unavailable(bootstrap, error.args[0]) from None


@dataclass(frozen=True, slots=True)
class _Delivery:
    """What became of one record: where it is, or why it is nowhere that we know of."""

    future: asyncio.Future[tuple[int, int]]
    error: KafkaError | None
    partition: int
    offset: int


class EventProducer:
    """Appends records; a send ends when every in-sync replica has the record (acks=all).

    Idempotent: a retry inside one process appends once. Built anywhere, used from one loop.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str = "rankstream",
        queue_records_max: int = QUEUE_RECORDS_MAX,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        linger_ms: int = 2,
    ) -> None:
        self._bootstrap = bootstrap
        self._queue_records_max = queue_records_max
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "partitioner": "murmur2_random",
                "message.max.bytes": topics.MAX_RECORD_BYTES,
                "queue.buffering.max.messages": queue_records_max,
                "message.timeout.ms": round(delivery_timeout_s * 1000),
                "log_level": LIBRARY_LOG_LEVEL,
            }
        )
        self._in_flight: set[asyncio.Future[tuple[int, int]]] = set()
        self._delivered: list[_Delivery] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-deliveries", daemon=True)

    @property
    def in_flight(self) -> int:
        """Records sent and not yet acked."""
        return len(self._in_flight)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes = b"",
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> asyncio.Future[tuple[int, int]]:
        """Append a record, by default to the partition of its key; its partition and offset.

        A None value is a tombstone. Records of one partition keep the order of their sends. A
        caller that goes away (a client hangs up) does not keep the record from being appended.

        Raises:
            QueueFull: too many records wait for their ack; nothing was appended.
            TooLarge: the record is over topics.MAX_RECORD_BYTES; nothing was appended.
            DependencyUnavailable: no ack in time; the record may have been appended.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        if self._closing.is_set():
            raise QueueFull("queue_full: the producer is closed. Nothing was appended. Send again.")
        if len(self._in_flight) >= self._queue_records_max:
            raise self._full()
        future: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        try:
            self._producer.produce(
                topic,
                value,
                key or None,
                -1 if partition is None else partition,
                on_delivery=self._on_delivery(future),
                headers=list(headers),
            )
        except BufferError:
            raise self._full() from None
        except KafkaException as error:
            raise self._refused(topic, len(value or b""), error.args[0]) from None
        self._in_flight.add(future)
        return future

    def _on_delivery(
        self, future: asyncio.Future[tuple[int, int]]
    ) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            partition, offset = message.partition(), message.offset()
            assert error is not None or (partition is not None and offset is not None)
            self._delivered.append(_Delivery(future, error, partition or 0, offset or 0))

        return delivered

    def _poll(self) -> None:
        """Serve deliveries off the loop, and wake it once for all of those at hand."""
        while not self._closing.is_set() or len(self._producer):
            self._producer.poll(0.1)
            if self._delivered and self._loop is not None:
                delivered, self._delivered = self._delivered, []
                self._loop.call_soon_threadsafe(self._resolve, delivered)

    def _resolve(self, deliveries: Iterable[_Delivery]) -> None:
        for delivery in deliveries:
            self._in_flight.discard(delivery.future)
            if delivery.future.done():
                continue
            if delivery.error is None:
                delivery.future.set_result((delivery.partition, delivery.offset))
            else:
                delivery.future.set_exception(
                    DependencyUnavailable(
                        f"dependency_unavailable: no ack from Kafka at {self._bootstrap}:"
                        f" {delivery.error.str()}. May have been appended. Send it again."
                    )
                )
                delivery.future.exception()  # seen, even if the caller has gone away

    def _full(self) -> QueueFull:
        return QueueFull(
            f"queue_full: {len(self._in_flight)} records wait for Kafka's ack (limit"
            f" {self._queue_records_max}). Nothing was appended. Try again."
        )

    def _refused(
        self, topic: str, size: int, error: KafkaError
    ) -> TooLarge | DependencyUnavailable:
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            return TooLarge(
                f"too_large: a record of {size} bytes for {topic} (limit"
                f" {topics.MAX_RECORD_BYTES}). Nothing was appended. Split it."
            )
        return unavailable(self._bootstrap, error)

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has in the cluster.

        Raises: DependencyUnavailable: the cluster does not answer or has no such topic.
        """
        return await asyncio.to_thread(self._partitions, topic, METADATA_TIMEOUT_S)

    async def ping(self, timeout_s: float) -> None:
        """Return if the cluster answers in time. Raises: DependencyUnavailable."""
        await asyncio.to_thread(self._partitions, topics.EVENTS.name, timeout_s)

    def _partitions(self, topic: str, timeout_s: float) -> int:
        try:
            found = self._producer.list_topics(topic, timeout=timeout_s).topics[topic]
        except KafkaException as error:
            raise unavailable(self._bootstrap, error.args[0]) from None
        if found.error is not None:
            raise unavailable(self._bootstrap, found.error)
        return len(found.partitions)

    async def flush_and_close(self) -> None:
        """Wait until every record sent is acked or has failed, then stop. Safe to call again."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        self._closing.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
