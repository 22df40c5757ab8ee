"""The log: create its topics, append to it, read it without a group."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from rankstream import topics
from rankstream.errors import Conflict, DependencyUnavailable, QueueFull, TooLarge

METADATA_TIMEOUT_S = 10.0
QUEUE_RECORDS_MAX = 100_000
DELIVERY_TIMEOUT_S = 10.0
FETCH_BYTES_MAX = 16 * 1024 * 1024
# Critical only: librdkafka prints each failed connection, which our errors already say.
LIBRARY_LOG_LEVEL = 2


def create_topics(bootstrap: str) -> None:
    """Create the topics of `topics.ALL` that the cluster lacks; safe to call again.

    Raises:
        Conflict: a topic exists with another number of partitions; nothing is changed.
        DependencyUnavailable: the cluster does not answer, or refuses.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": LIBRARY_LOG_LEVEL})
    try:
        existing = admin.list_topics(timeout=METADATA_TIMEOUT_S).topics
    except KafkaException as error:
        raise _unavailable(bootstrap, error.args[0]) from None
    for topic in topics.ALL:
        found = existing.get(topic.name)
        if found is not None and len(found.partitions) != topic.partitions:
            raise Conflict(
                f"conflict: topic {topic.name} has {len(found.partitions)} partitions, expected"
                f" {topic.partitions}. Nothing was created. Keys would move between partitions:"
                " create a new cluster, or change topics.py before the first event."
            )
    missing = [
        NewTopic(topic.name, num_partitions=topic.partitions, config=topic.config())
        for topic in topics.ALL
        if topic.name not in existing
    ]
    if not missing:
        return
    for creation in admin.create_topics(missing, request_timeout=METADATA_TIMEOUT_S).values():
        try:
            creation.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise _unavailable(bootstrap, error.args[0]) from None


def _unavailable(bootstrap: str, error: KafkaError) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"dependency_unavailable: Kafka at {bootstrap}: {error.str()} ({error.name()})."
        " Nothing was done. Try again."
    )


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

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes = b"",
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[int, int]:
        """Append a record, by default to the partition of its key; its partition and offset.

        A None value is a tombstone. Records of one partition keep the order of their sends.

        Raises:
            QueueFull: too many records wait for their ack; nothing was appended.
            TooLarge: the record is over topics.MAX_RECORD_BYTES; nothing was appended.
            DependencyUnavailable: no ack in time; the record may have been appended.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._thread.start()
        if self._closing.is_set():
            raise QueueFull("queue_full: the producer is closed. Nothing was appended. Send again.")
        if len(self._in_flight) >= self._queue_records_max:
            raise self._full()
        future: asyncio.Future[tuple[int, int]] = loop.create_future()
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
        # The caller may go away (a client hangs up); the record is on its way all the same.
        return await asyncio.shield(future)

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
        return _unavailable(self._bootstrap, error)

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
            raise _unavailable(self._bootstrap, error.args[0]) from None
        if found.error is not None:
            raise _unavailable(self._bootstrap, found.error)
        return len(found.partitions)

    async def flush_and_close(self) -> None:
        """Wait until every record sent is acked or has failed, then stop. Safe to call again."""
        while self._in_flight:
            await asyncio.wait(self._in_flight)
        self._closing.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log; value None is a tombstone, `timestamp_ms` the broker's clock."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None


class LogReader:
    """Reads all partitions of some topics, outside any group: from their start, or from `offsets`.

    For compacted topics and for aggregates that are rebuilt on start. Call `poll` from one task.
    """

    def __init__(
        self,
        bootstrap: str,
        topic_names: Sequence[str],
        *,
        offsets: Mapping[tuple[str, int], int] | None = None,
        client_id: str = "rankstream",
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topic_names)
        self._from = dict(offsets or {})
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                # Required by the client; with assign() no group is ever joined.
                "group.id": f"{client_id}-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": FETCH_BYTES_MAX // 1024,
                "log_level": LIBRARY_LOG_LEVEL,
            }
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-reader")
        self._positions: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._started = False

    @property
    def caught_up(self) -> bool:
        """True once every record that was in the log at the first poll has been returned."""
        return self._started and all(
            self._positions[source] >= end for source, end in self._ends.items()
        )

    def positions(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> offset of the next record to be returned."""
        return dict(self._positions)

    def lag(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> records between the position and the end as last heard of."""
        lags = {}
        for source, position in self._positions.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*source), cached=True)
            lags[source] = max(0, max(high, self._ends[source]) - position)
        return lags

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """The next records, in order within a partition; empty if none came in time.

        Raises:
            DependencyUnavailable: the cluster does not answer at the first poll, or lacks a topic.
            Conflict: an offset to read from is no longer in the log.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._poll, max_records, timeout_s)

    async def close(self) -> None:
        """Leave the cluster."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._consumer.close)
        self._thread.shutdown()

    def _start(self) -> None:
        try:
            found = self._consumer.list_topics(timeout=METADATA_TIMEOUT_S).topics
            for name in self._topics:
                if name not in found:
                    raise DependencyUnavailable(
                        f"dependency_unavailable: Kafka at {self._bootstrap} has no topic {name}."
                        " Nothing was read. Create the topics and try again."
                    )
                for partition in found[name].partitions:
                    self._locate(name, partition)
        except KafkaException as error:
            raise _unavailable(self._bootstrap, error.args[0]) from None
        self._consumer.assign(
            [TopicPartition(*source, offset) for source, offset in self._starts().items()]
        )
        self._started = True

    def _locate(self, topic: str, partition: int) -> None:
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=METADATA_TIMEOUT_S
        )
        self._ends[topic, partition] = high
        self._positions[topic, partition] = self._from.get((topic, partition), low)

    def _starts(self) -> dict[tuple[str, int], int]:
        return {source: self._from.get(source, OFFSET_BEGINNING) for source in self._positions}

    def _poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if not self._started:
            self._start()
        # `consume` alone would wait for max_records or the whole timeout.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages = [first]
        if max_records > 1:
            messages += self._consumer.consume(max_records - 1, 0)
        return [record for message in messages if (record := self._record(message)) is not None]

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and topic is not None:
                # The end may lie beyond the last record: compaction leaves holes.
                self._positions[topic, partition or 0] = offset or 0
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise Conflict(
                    f"conflict: {topic}[{partition}]: {error.str()}. The log no longer has the"
                    " records to read from. Rebuild from the start."
                )
            elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
                raise _unavailable(self._bootstrap, error)
            return None
        assert topic is not None
        assert partition is not None
        assert offset is not None
        self._positions[topic, partition] = offset + 1
        return Record(
            topic, partition, offset, message.timestamp()[1], message.key() or b"", message.value()
        )
