"""Read the log without a group: compacted topics, and aggregates that are rebuilt on start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from rankstream.adapters.kafka_client import (
    LIBRARY_LOG_LEVEL,
    METADATA_TIMEOUT_S,
    PASSING,
    unavailable,
)
from rankstream.contracts.record import Record
from rankstream.errors import Conflict, DependencyUnavailable

FETCH_BYTES_MAX = 16 * 1024 * 1024
GATHERED_BYTES = 1024 * 1024
IDLE_WAIT_MS = 50
LEADER_WAITS_MAX = 100


RawHeaders = Mapping[str, str | bytes | None] | Sequence[tuple[str, str | bytes | None]] | None


def headers_of(message: Message) -> tuple[tuple[str, bytes], ...]:
    """A message's headers; one without a value has an empty one."""
    return plain_headers(message.headers())


def plain_headers(found: RawHeaders) -> tuple[tuple[str, bytes], ...]:
    """Headers as any client of Kafka gives them, in one form."""
    if not found:
        return ()
    pairs = found.items() if isinstance(found, Mapping) else found
    return tuple((name, _bytes_of(value)) for name, value in pairs)


def _bytes_of(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


class LogReader:
    """Reads partitions of some topics, outside any group: from their start, or from `offsets`.

    All partitions, unless `partitions` says which, the same of each topic. With `since_ms`, those
    without an offset are read from the first record appended at that time or later.

    For compacted topics and for aggregates that are rebuilt on start. Call `poll` from one task.

    With `gather_ms` the broker answers when it has GATHERED_BYTES or so much time has passed:
    fewer, larger answers for a reader that is in no hurry. Without, a record comes at once.
    """

    def __init__(
        self,
        bootstrap: str,
        topic_names: Sequence[str],
        *,
        offsets: Mapping[tuple[str, int], int] | None = None,
        since_ms: int | None = None,
        partitions: Collection[int] | None = None,
        client_id: str = "rankstream",
        gather_ms: int = 0,
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = tuple(topic_names)
        self._from = dict(offsets or {})
        self._since_ms = since_ms
        self._partitions = partitions
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                # Required by the client; with assign() no group is ever joined.
                "group.id": f"{client_id}-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.min.bytes": GATHERED_BYTES if gather_ms else 1,
                "fetch.wait.max.ms": gather_ms or IDLE_WAIT_MS,
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
        # The thread that polls adds to it.
        for source, position in list(self._positions.items()):
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
                    if self._partitions is None or partition in self._partitions:
                        self._locate(name, partition)
            if self._since_ms is not None:
                self._seek(self._since_ms)
        except KafkaException as error:
            raise unavailable(self._bootstrap, error.args[0]) from None
        starts = {source: self._from.get(source, OFFSET_BEGINNING) for source in self._positions}
        self._consumer.assign([TopicPartition(*source, at) for source, at in starts.items()])
        self._started = True

    def _locate(self, topic: str, partition: int) -> None:
        place = TopicPartition(topic, partition)
        for wait in range(LEADER_WAITS_MAX):
            try:
                low, high = self._consumer.get_watermark_offsets(place, timeout=METADATA_TIMEOUT_S)
                break
            except KafkaException as error:
                # A topic just created, or a broker just started, has no leader for a moment.
                if error.args[0].code() not in PASSING or wait == LEADER_WAITS_MAX - 1:
                    raise
                time.sleep(0.1)
        self._ends[topic, partition] = high
        self._positions[topic, partition] = self._from.get((topic, partition), low)

    def _seek(self, since_ms: int) -> None:
        """Begin at a time where no offset is given."""
        places = [
            TopicPartition(*source, since_ms) for source in self._positions.keys() - self._from
        ]
        for place in self._consumer.offsets_for_times(places, timeout=METADATA_TIMEOUT_S):
            source = place.topic, place.partition
            # Negative: nothing was appended since.
            at = place.offset if place.offset >= 0 else self._ends[source]
            self._from[source] = self._positions[source] = at

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
            elif error.code() not in PASSING:
                raise unavailable(self._bootstrap, error)
            return None
        assert topic is not None
        assert partition is not None
        assert offset is not None
        self._positions[topic, partition] = offset + 1
        return Record(
            topic,
            partition,
            offset,
            message.timestamp()[1],
            message.key() or b"",
            message.value(),
            headers_of(message),
        )
