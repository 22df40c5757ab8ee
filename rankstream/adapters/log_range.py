"""Read a range of offsets of one partition, outside any group: for replay and catching up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from rankstream.adapters.log_reader import headers_of
from rankstream.contracts.record import Record
from rankstream.errors import Conflict, DependencyUnavailable

RECORDS_PER_READ: Final = 500
READ_TIMEOUT_S: Final = 10.0
METADATA_TIMEOUT_S: Final = 10.0


class PartitionLog:
    """One partition of a topic, read by offset."""

    def __init__(self, bootstrap: str, topic: str, partition: int, *, client_id: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._partition = partition
        self._client_id = client_id

    async def read(self, start: int, end: int | None = None) -> AsyncGenerator[list[Record], None]:
        """Records with start <= offset < end, by default the log's end as of now.

        Offsets that compaction has emptied are passed over.

        Raises:
            Conflict: `start` is over 0 and the log begins behind it.
            DependencyUnavailable: the cluster does not answer.
        """
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-range")
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "client.id": self._client_id,
                "group.id": f"{self._client_id}-range",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 3,
            }
        )
        try:
            low, high = await loop.run_in_executor(thread, self._bounds, consumer)
            position, end = self._from(start, low), high if end is None else end
            if position < end:
                consumer.assign([TopicPartition(self._topic, self._partition, position)])
            while position < end:
                records, position = await loop.run_in_executor(
                    thread, self._next, consumer, position
                )
                inside = [record for record in records if record.offset < end]
                if inside:
                    yield inside
        finally:
            await loop.run_in_executor(thread, consumer.close)
            thread.shutdown()

    def _bounds(self, consumer: Consumer) -> tuple[int, int]:
        try:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(self._topic, self._partition), timeout=METADATA_TIMEOUT_S
            )
        except KafkaException as error:
            raise self._unavailable(error.args[0]) from None
        return low, high

    def _from(self, start: int, low: int) -> int:
        if 0 < start < low:
            raise Conflict(
                f"conflict: {self._topic}[{self._partition}] begins at offset {low}, the state"
                f" goes on from {start}. Nothing was read. Retention is shorter than the outage:"
                " empty this Redis and the snapshots to rebuild from what is left."
            )
        return max(start, low)

    def _next(self, consumer: Consumer, position: int) -> tuple[list[Record], int]:
        """Some records, and the position behind them; at the log's end, the end."""
        first = consumer.poll(READ_TIMEOUT_S)
        if first is None:
            raise DependencyUnavailable(
                f"dependency_unavailable: Kafka at {self._bootstrap} sent nothing of"
                f" {self._topic}[{self._partition}] for {READ_TIMEOUT_S:g} s. Try again."
            )
        records: list[Record] = []
        for message in (first, *consumer.consume(RECORDS_PER_READ, 0)):
            error, offset = message.error(), message.offset()
            if error is None:
                assert offset is not None
                position = offset + 1
                records.append(
                    Record(
                        self._topic,
                        self._partition,
                        offset,
                        message.timestamp()[1],
                        message.key() or b"",
                        message.value(),
                        headers_of(message),
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                position = max(position, offset or 0)
            elif not error.retriable():
                raise self._unavailable(error)
        return records, position

    def _unavailable(self, error: KafkaError) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"dependency_unavailable: Kafka at {self._bootstrap}: {error.str()} ({error.name()})."
            " Nothing was read. Try again."
        )
