"""A Kafka broker on loopback: one KRaft node, no Docker, no ZooKeeper."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path
from typing import Final

from deploy.local.errors import StartFailed
from deploy.local.processes import Spec
from deploy.local.tools import Tools
from rankstream.topics import MAX_RECORD_BYTES

HEAP: Final = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError")
FORMAT_TIMEOUT_S: Final = 60
LOG4J: Final = Path(__file__).resolve().with_name("log4j2.properties")


def kafka_spec(tools: Tools, state: Path, port: int, controller_port: int) -> Spec:
    """The process of a broker that keeps its log in `state`, which is formatted if new.

    Raises: StartFailed if the folder cannot be formatted.
    """
    state.mkdir(parents=True, exist_ok=True)
    properties = state / "server.properties"
    properties.write_text(_properties(state, port, controller_port), encoding="utf-8")
    java = [str(tools.java), *HEAP, "-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true"]
    java += [f"-Dlog4j2.configurationFile={LOG4J}", "-cp", f"{tools.kafka_jars}/*"]
    if not (state / "log" / "meta.properties").exists():
        _format(java, properties)
    command = (*java, "kafka.Kafka", str(properties))
    return Spec("kafka", command, {}, state, (port, controller_port), stop_timeout_s=30)


def kafka_answers(port: int) -> bool:
    """Whether the broker gives its metadata, with itself in it."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    # Refused connections while it starts are expected: not a line each on the terminal.
    quiet: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"127.0.0.1:{port}",
        "log_level": 0,
    }
    try:
        return bool(AdminClient(quiet).list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def _properties(state: Path, port: int, controller_port: int) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(state / "log"),
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        # Retention goes by the records' timestamps: replayed history would be deleted.
        "log.retention.ms": "-1",
        "message.max.bytes": str(MAX_RECORD_BYTES),
        "group.initial.rebalance.delay.ms": "0",
        # After kill -9 the broker is let in again once its last session has ended (default 9 s).
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "1000",
        # One node: what a cluster keeps three times is kept once.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        # The default of 128 MB would be a third of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _format(java: list[str], properties: Path) -> None:
    command = [*java, "kafka.tools.StorageTool", "format", "--cluster-id", _cluster_id()]
    command += ["--config", str(properties), "--ignore-formatted"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False
    )
    if ran.returncode != 0:
        raise StartFailed(
            f"kafka could not format {properties.parent}: {ran.stdout}{ran.stderr}."
            " Nothing was started. If its data may go, remove that folder and try again."
        )


def _cluster_id() -> str:
    """A UUID in Kafka's form: base64 for URLs, unpadded, not looking like an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text
