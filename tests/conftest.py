"""Embedded Kafka, Redis (the same as the demo's) and PostgreSQL, for tests marked `integration`.

Started once per session, on free ports, with data in a temporary folder, and only when a
test asks. All is stopped at the end, whatever failed.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

# Before Feast is: it chooses, for good, how values are kept.
import prometheus_client  # noqa: F401
import pytest
import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.local.kafka import kafka_answers, kafka_spec
from deploy.local.processes import NOT_INHERITED, Processes
from deploy.local.redis import redis_answers, redis_spec
from deploy.local.report import Silent
from deploy.local.services import Ports
from deploy.local.tools import Tools, provision
from rankstream import topics
from rankstream.adapters.kafka import create_topics
from tests.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
ADMIN_TIMEOUT_S = 10.0


def pytest_collection_finish() -> None:
    """Forget what importing Feast has set, for the sake of its own server: prometheus_client's
    multi-process mode, in which our services do not run.
    """
    for name in NOT_INHERITED:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Java, Kafka's jars, a Redis server and MovieLens 100K, brought in if they are not there."""
    return provision(ROOT / ".run" / "tools", Silent())


@pytest.fixture(scope="session")
def embedded_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Where the servers of this session are recorded; stops them."""
    processes = Processes(tmp_path_factory.mktemp("embedded"))
    try:
        yield processes
    finally:
        for record in processes.records().values():
            processes.stop(record)


@pytest.fixture(scope="session")
def embedded_ports() -> Ports:
    """Ports for the servers of this session."""
    return Ports.free()


@pytest.fixture(scope="session")
def kafka(tools: Tools, embedded_processes: Processes, embedded_ports: Ports) -> str:
    """Bootstrap address of a real broker without topics. See `new_topic` and `kafka_topics`."""
    state = embedded_processes.state / "kafka"
    port = embedded_ports.kafka
    record = embedded_processes.start(
        kafka_spec(tools, state, port, embedded_ports.kafka_controller)
    )
    embedded_processes.await_ready(record, lambda: kafka_answers(port), START_TIMEOUT_S)
    return f"127.0.0.1:{port}"


@pytest.fixture
def second_kafka(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of another broker, without topics."""
    processes, ports = Processes(tmp_path_factory.mktemp("second")), Ports.free()
    state = processes.state / "kafka"
    record = processes.start(kafka_spec(tools, state, ports.kafka, ports.kafka_controller))
    try:
        processes.await_ready(record, lambda: kafka_answers(ports.kafka), START_TIMEOUT_S)
        yield f"127.0.0.1:{ports.kafka}"
    finally:
        processes.stop(record)


@pytest.fixture(scope="session")
def redis_server(tools: Tools, embedded_processes: Processes, embedded_ports: Ports) -> str:
    """URL of a real Redis, shared by the session. See `clean_redis`."""
    port = embedded_ports.redis
    record = embedded_processes.start(
        redis_spec(tools.redis_server, embedded_processes.state / "redis", port)
    )
    embedded_processes.await_ready(record, lambda: redis_answers(port), START_TIMEOUT_S)
    return f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def clean_redis(redis_server: str) -> str:
    """URL of the session's Redis, emptied."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, shared by the session; a test has a database of its own."""
    server = Postgres()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def new_topic(kafka: str) -> Callable[[int], str]:
    """Create a topic of so many partitions under a name of its own; returns the name."""
    admin = AdminClient({"bootstrap.servers": kafka})

    def create(partitions: int) -> str:
        name = f"test-{uuid.uuid4().hex}"
        config = {"message.timestamp.type": "LogAppendTime"}
        wanted = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        for future in admin.create_topics([wanted]).values():
            future.result(ADMIN_TIMEOUT_S)
        return name

    return create


@pytest.fixture
def kafka_topics(kafka: str) -> str:
    """Bootstrap address of the session's broker with the system's topics, all of them empty.

    Offsets that a group has committed go with the deleted topics.
    """
    admin = AdminClient({"bootstrap.servers": kafka})
    existing = admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics
    names = [topic.name for topic in topics.ALL if topic.name in existing]
    for future in (admin.delete_topics(names) if names else {}).values():
        try:
            future.result(ADMIN_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    # The broker follows its controller; one that still shows the old topics would keep them.
    _until(lambda: not set(names) & _topic_names(admin), "deleted topics to go")
    create_topics(kafka)
    expected = {topic.name for topic in topics.ALL}
    _until(lambda: expected <= _topic_names(admin), "new topics to come")
    return kafka


def _topic_names(admin: AdminClient) -> set[str]:
    return set(admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics)


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + ADMIN_TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, f"waited {ADMIN_TIMEOUT_S:g} s for {what}"
        time.sleep(0.02)
