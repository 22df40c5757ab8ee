"""The features service in processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.services import Ports
from tests.services.features.embedded_service import Service


@pytest.fixture
def new_service(
    kafka_topics: str, clean_redis: str, tmp_path: Path
) -> Iterator[Callable[..., Service]]:
    """Make services that share Kafka, Redis, snapshots and lake; all are stopped at the end."""
    services: list[Service] = []

    def make(**settings: str) -> Service:
        name = f"features-{len(services)}"
        environ = {
            "PORT": str(Ports.free().features),
            "KAFKA_URL": kafka_topics,
            "REDIS_URL": clean_redis,
            "SNAPSHOTS": str(tmp_path / "snapshots"),
            "LAKE": str(tmp_path / "lake"),
            "LAKE_FLUSH_S": "1",
            "SESSION_TIMEOUT_S": "6",
            "LATENESS_MS": "2000",
            "CLICK_WINDOW_MS": "5000",
            "CONVERSION_WINDOW_MS": "10000",
            **settings,
        }
        prefixed = {f"FEATURES_{key}": value for key, value in environ.items()}
        service = Service(prefixed, tmp_path / f"{name}.log")
        services.append(service)
        return service

    yield make
    for service in services:
        if service.process is not None and service.process.poll() is None:
            service.kill()
