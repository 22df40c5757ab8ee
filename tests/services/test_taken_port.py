"""Every service as a process, one of whose ports another has: it says so by name and ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.services import Ports, service_ports

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 60.0
TAKEN = [
    ("ingest", "PORT"),
    ("ingest", "ADMIN_PORT"),
    ("features", "PORT"),
    ("retrieval", "PORT"),
    ("retrieval", "GRPC_PORT"),
    ("ranker", "PORT"),
    ("ranker", "ADMIN_PORT"),
    ("ranker", "GRPC_PORT"),
    ("ranker", "ADMIN_GRPC_PORT"),
    ("experiments", "PORT"),
    ("experiments", "ADMIN_PORT"),
    ("monitor", "PORT"),
]


@pytest.mark.integration
@pytest.mark.parametrize(("service", "variable"), TAKEN)
def test_a_taken_port_is_named_and_the_service_does_not_start(
    service: str, variable: str, kafka_topics: str
) -> None:
    prefix = service.upper()
    ports = service_ports(service, Ports.free())
    own = {f"{prefix}_{key}": str(port) for key, port in ports.items()}
    own[f"{prefix}_KAFKA_URL"] = kafka_topics
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own[f"{prefix}_{variable}"] = str(port)

        ended = subprocess.run(
            [sys.executable, "-m", f"services.{service}"],
            cwd=ROOT,
            env={**os.environ, **own},
            capture_output=True,
            timeout=WAIT_S,
        )

    said = json.loads(ended.stdout.splitlines()[-1])
    protocol = "gRPC" if "GRPC" in variable else "HTTP"
    assert (ended.returncode, said["event"]) == (1, "service_not_started"), ended
    assert said["error"].startswith(f"cannot_listen: {protocol} at 127.0.0.1:{port}: ")
    assert "in use" in said["error"]
    assert "never awaited" not in ended.stderr.decode()
