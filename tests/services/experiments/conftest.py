"""The experiments service in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import Producer

from deploy.local.services import Ports
from tests.services.experiments.experiments_process import Service


@pytest.fixture
def service(kafka_topics: str) -> Iterator[Service]:
    """A running service on empty topics."""
    ports = Ports.free()
    producer = Producer(
        {"bootstrap.servers": kafka_topics, "enable.idempotence": True, "log_level": 2}
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{ports.experiments_admin}", timeout=10) as http:
        running = Service(kafka_topics, ports.experiments, ports.experiments_admin, http, producer)
        try:
            running.start()
            yield running
        finally:
            if running.process is not None:
                running.process.kill()
                running.process.wait()
