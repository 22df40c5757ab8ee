"""Copy the log into another cluster, where its topics have another number of partitions.

State is a function of the log, and a user's part of it depends on the user's partition only. So a
log with more partitions is a new log: every event goes to the partition that its user has there, in
order of its append and with its time of append, and the workers build all else from it. The old log
is only read: a copy that fails is thrown away and made again.

Copied: `events`, `items`, `exposures`, `experiments`, `models`, and of `events.dead` what no worker
would write again. Not copied: what workers make (`labels`, `sessions`, `feature-updates`, their own
dead letters), `events.json` (ingest has moved it), and `served`, whose slates say where the old log
stood; they stay in the old lake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic
from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.adapters.kafka_client import LIBRARY_LOG_LEVEL, METADATA_TIMEOUT_S, unavailable
from rankstream.adapters.log_range import PartitionLog
from rankstream.adapters.partitions import existing, read_partitions
from rankstream.contracts.codec import decode_batch
from rankstream.contracts.partitioning import split_batch
from rankstream.contracts.record import Record
from rankstream.errors import Conflict, DependencyUnavailable, InvalidBatch
from rankstream.pb import events_pb2 as pb

BY_KEY: Final = (topics.ITEMS, topics.EXPOSURES, topics.EXPERIMENTS, topics.MODELS)
COPIED: Final = (topics.EVENTS, *BY_KEY, topics.EVENTS_DEAD)
MADE_BY_WORKERS: Final = "features"
PARTITIONS_MAX: Final = 4_096
_TIMESTAMP_TYPE: Final = "message.timestamp.type"
_CLIENT: Final = "rankstream-repartition"
_FLUSH_S: Final = 60.0

# partition or None: by key; value
Target = tuple[int | None, bytes | None]


async def repartition(
    source: str, target: str, partitions: int, *, progress: Callable[[str, int], None]
) -> Counter[str]:
    """Create the topics at `target` and fill them; records appended, by topic.

    Args:
        partitions: of every topic that has more than one.
        progress: hears (topic, records read so far).

    Raises:
        Conflict: the target has such topics already, or is the source. Nothing was done.
        DependencyUnavailable: a cluster does not answer. Throw the target away and begin again.
    """
    assert 0 < partitions <= PARTITIONS_MAX, partitions
    read_partitions(source)
    counts = existing(source)
    _create(target, partitions)
    copy = _Copy(target, partitions)
    for topic in COPIED:
        read = 0
        async with aclosing(_in_order(source, topic, counts[topic.name])) as records:
            async for record in records:
                copy.append(topic, record)
                read += 1
                progress(topic.name, read)
        copy.flush()
    _settle(target)
    return copy.appended


def _create(target: str, partitions: int) -> None:
    found = sorted({topic.name for topic in topics.ALL} & existing(target).keys())
    if found:
        raise Conflict(
            f"conflict: Kafka at {target} has {', '.join(found)} already. Nothing was copied."
            " Copy into a cluster without topics of ours."
        )
    admin = _admin(target)
    wanted = [
        NewTopic(
            topic.name,
            num_partitions=partitions if topic.partitions > 1 else 1,
            # For the copy: a record keeps the time at which the old log took it.
            config={**topic.config(), _TIMESTAMP_TYPE: "CreateTime"},
        )
        for topic in topics.ALL
    ]
    for creation in admin.create_topics(wanted, request_timeout=METADATA_TIMEOUT_S).values():
        _await(target, creation.result)


def _settle(target: str) -> None:
    """From now on the broker's clock says when a record came."""
    entry = ConfigEntry(
        _TIMESTAMP_TYPE, "LogAppendTime", incremental_operation=AlterConfigOpType.SET
    )
    resources = [
        ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=[entry])
        for topic in topics.ALL
        if topic.log_append_time
    ]
    admin = _admin(target)
    for change in admin.incremental_alter_configs(resources).values():
        _await(target, change.result)


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": LIBRARY_LOG_LEVEL})


def _await(bootstrap: str, result: Callable[[float], object]) -> None:
    try:
        result(METADATA_TIMEOUT_S)
    except KafkaException as error:
        raise unavailable(bootstrap, error.args[0]) from None


async def _in_order(
    source: str, topic: topics.Topic, partitions: int
) -> AsyncGenerator[Record, None]:
    """All records of a topic by time of append; those of a partition in their order."""
    async with AsyncExitStack() as stack:
        heads: list[Record] = []
        rest: dict[int, tuple[Iterator[Record], AsyncGenerator[list[Record], None]]] = {}
        for partition in range(partitions):
            log = PartitionLog(source, topic.name, partition, client_id=_CLIENT)
            portions = await stack.enter_async_context(aclosing(log.read(0)))
            rest[partition] = (iter(()), portions)
            if (head := await _next(rest, partition)) is not None:
                heads.append(head)
        while heads:
            first = min(heads, key=lambda record: (record.timestamp_ms, record.partition))
            heads.remove(first)
            yield first
            if (head := await _next(rest, first.partition)) is not None:
                heads.append(head)


async def _next(
    rest: dict[int, tuple[Iterator[Record], AsyncGenerator[list[Record], None]]], partition: int
) -> Record | None:
    buffered, portions = rest[partition]
    while (record := next(buffered, None)) is None:
        portion = await anext(portions, None)
        if portion is None:
            return None
        buffered = iter(portion)
        rest[partition] = (buffered, portions)
    return record


class _Copy:
    """Appends to the target, with the times of the source."""

    def __init__(self, target: str, partitions: int) -> None:
        self.appended: Counter[str] = Counter()
        self._target = target
        self._partitions = partitions
        self._error: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": target,
                "client.id": _CLIENT,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 20,
                "partitioner": "murmur2_random",
                "message.max.bytes": topics.MAX_RECORD_BYTES,
                "queue.buffering.max.kbytes": 65_536,
                "log_level": LIBRARY_LOG_LEVEL,
            }
        )

    def append(self, topic: topics.Topic, record: Record) -> None:
        """Append what becomes of a record. Raises: DependencyUnavailable."""
        for partition, value in self._targets(topic, record):
            while not self._produced(topic, record, partition, value):
                self._producer.poll(0.1)
            self.appended[topic.name] += 1
        self._producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Wait for all acks. Raises: DependencyUnavailable."""
        left = self._producer.flush(_FLUSH_S)
        self._check()
        if left:
            raise self._failed(f"{left} records have no ack after {_FLUSH_S:g} s")

    def _produced(
        self, topic: topics.Topic, record: Record, partition: int | None, value: bytes | None
    ) -> bool:
        try:
            self._producer.produce(
                topic.name,
                value,
                record.key or None,
                -1 if partition is None else partition,
                on_delivery=self._delivered,
                timestamp=record.timestamp_ms,
                headers=list(record.headers),
            )
        except BufferError:
            return False
        return True

    def _targets(self, topic: topics.Topic, record: Record) -> list[Target]:
        if topic is topics.EVENTS:
            return self._events(record)
        if topic is topics.EVENTS_DEAD:
            return _kept_letter(record.value or b"")
        return [(None if topic.partitions > 1 else 0, record.value)]

    def _events(self, record: Record) -> list[Target]:
        try:
            parts = split_batch(decode_batch(record.value or b""), self._partitions)
        except InvalidBatch:
            # As bad there as here: a worker will refuse it again.
            return [(record.partition % self._partitions, record.value)]
        return list(parts.items())

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._error = self._error or error

    def _check(self) -> None:
        if self._error is not None:
            raise self._failed(self._error.str())

    def _failed(self, why: str) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"dependency_unavailable: Kafka at {self._target}: {why}. The copy is not whole. Throw"
            " it away and begin again; the old log is as it was."
        )


def _kept_letter(value: bytes) -> list[Target]:
    """A letter that no worker will write again, or a note, under an id that stays its own."""
    try:
        letter = pb.DeadLetter.FromString(value)
    except DecodeError:
        return []
    if letter.source == MADE_BY_WORKERS:
        return []
    # Ids are places in the log, and the new log will have other records in these places.
    letter.dead_letter_id = f"old/{letter.dead_letter_id}"
    return [(0, letter.SerializeToString())]
