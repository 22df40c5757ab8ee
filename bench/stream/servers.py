"""A Kafka and a Redis of our own on free ports, in a temporary folder, and what is in them."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bench.stream.errors import MeasurementFailed
from bench.stream.load import LoadRecord
from deploy.local.kafka import kafka_answers, kafka_spec
from deploy.local.processes import Processes
from deploy.local.redis import redis_answers, redis_spec
from deploy.local.report import Silent
from deploy.local.services import Ports
from deploy.local.tools import provision
from rankstream import topics

ROOT: Final = Path(__file__).resolve().parents[2]
PARTITIONS: Final = 8
# Co-partitioned by user; the topics of targets keep the number that the service counts on.
BY_USER: Final = (topics.EVENTS.name, topics.LABELS.name, topics.SESSIONS.name)
START_TIMEOUT_S: Final = 60.0
ADMIN_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02


@dataclass(frozen=True)
class Servers:
    """Where they listen, and the folder that goes when the measurement ends."""

    kafka: str
    redis_url: str
    folder: Path
    processes: Processes

    def redis(self) -> redis.Redis:
        """A client of its own."""
        return redis.Redis.from_url(self.redis_url)


@contextmanager
def started() -> Iterator[Servers]:
    """Both servers, as the demo runs them; stopped and their folder removed at the end."""
    tools = provision(ROOT / ".run" / "tools", Silent())
    folder = Path(tempfile.mkdtemp(prefix="bench-stream-"))
    processes = Processes(folder)
    try:
        ports = Ports.free()
        broker = processes.start(
            kafka_spec(tools, folder / "kafka", ports.kafka, ports.kafka_controller)
        )
        store = processes.start(redis_spec(tools.redis_server, folder / "redis", ports.redis))
        processes.await_ready(broker, lambda: kafka_answers(ports.kafka), START_TIMEOUT_S)
        processes.await_ready(store, lambda: redis_answers(ports.redis), START_TIMEOUT_S)
        yield Servers(
            f"127.0.0.1:{ports.kafka}", f"redis://127.0.0.1:{ports.redis}/0", folder, processes
        )
    finally:
        for record in processes.records().values():
            processes.stop(record)
        shutil.rmtree(folder, ignore_errors=True)


def reset(servers: Servers, extra: Sequence[topics.Topic] = ()) -> None:
    """Empty topics, no committed offsets, empty Redis, no snapshots, no lake."""
    admin = AdminClient({"bootstrap.servers": servers.kafka})
    wanted = [_widened(topic) for topic in topics.ALL] + list(extra)
    # What an earlier measurement has left goes too, `__consumer_offsets` aside.
    old = {name for name in _names(admin) if not name.startswith("__")}
    for future in (admin.delete_topics(sorted(old)) if old else {}).values():
        future.result(ADMIN_TIMEOUT_S)
    _until(lambda: not old & _names(admin), "the old topics to go")
    _create(admin, wanted)
    _until(lambda: {topic.name for topic in wanted} <= _names(admin), "the new topics to come")
    with servers.redis() as client:
        client.flushall()
    for name in ("snapshots", "lake"):
        shutil.rmtree(servers.folder / name, ignore_errors=True)


def _widened(topic: topics.Topic) -> topics.Topic:
    return replace(topic, partitions=PARTITIONS) if topic.name in BY_USER else topic


def _create(admin: AdminClient, wanted: Sequence[topics.Topic]) -> None:
    new = [NewTopic(t.name, num_partitions=t.partitions, config=t.config()) for t in wanted]
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while new:
        refused = []
        for topic, future in zip(new, admin.create_topics(new).values(), strict=True):
            try:
                future.result(ADMIN_TIMEOUT_S)
            except KafkaException as error:
                # Its deletion is still under way in the controller.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                refused.append(topic)
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"topics {[t.topic for t in refused]} cannot be created anew")
        new = refused


def produce(
    servers: Servers, records: Iterable[LoadRecord], topic: str, *, compression: str = "lz4"
) -> list[int]:
    """Append all records; the end offset of each of the topic's partitions afterwards."""
    producer = Producer(
        {
            "bootstrap.servers": servers.kafka,
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": compression,
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
            # Retries while the broker settles are no news.
            "log_level": 3,
        }
    )
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failed.append(error)

    for record in records:
        while True:
            try:
                producer.produce(
                    topic, record.value, partition=record.partition, on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush(ADMIN_TIMEOUT_S)
    if failed or len(producer):
        raise MeasurementFailed(f"{len(failed)} records were refused: {failed[:1]}")
    return ends(servers, topic)


def ends(servers: Servers, topic: str) -> list[int]:
    """The end offset of each partition."""
    consumer = Consumer({"bootstrap.servers": servers.kafka, "group.id": "bench-ends"})
    try:
        count = len(consumer.list_topics(topic, ADMIN_TIMEOUT_S).topics[topic].partitions)
        return [
            consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=ADMIN_TIMEOUT_S)[1]
            for p in range(count)
        ]
    finally:
        consumer.close()


def _names(admin: AdminClient) -> set[str]:
    return set(admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics)


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"waited {ADMIN_TIMEOUT_S:g} s for {what}")
        time.sleep(POLL_S)
