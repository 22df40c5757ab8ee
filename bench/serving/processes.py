"""Services on their own core, and the processor time that they take, read from outside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import psutil

from bench.stream.errors import MeasurementFailed
from bench.stream.servers import ROOT, Servers
from deploy.local.processes import Record, Spec
from deploy.local.services import COMMON, Ports, service_ports

READY_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1


@dataclass(frozen=True)
class Service:
    """One running service; `http` and `grpc` are its addresses."""

    servers: Servers
    record: Record
    http: str
    grpc: str

    def cpu_s(self) -> float:
        """User and system time since it started."""
        times = psutil.Process(self.record.pid).cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.record.pid).memory_info().rss)

    def pin(self, cores: set[int]) -> None:
        """Keep every thread of it on these cores."""
        for thread in psutil.Process(self.record.pid).threads():
            os.sched_setaffinity(thread.id, cores)

    def await_ready(self) -> None:
        """Return once /readyz says so."""
        deadline, said = time.monotonic() + READY_TIMEOUT_S, "nothing"
        while time.monotonic() < deadline:
            self.servers.processes.require_running(self.record)
            try:
                answer = httpx.get(f"http://{self.http}/readyz", timeout=5)
                if answer.status_code == httpx.codes.OK:
                    return
                said = answer.text
            except httpx.TransportError:
                pass
            time.sleep(POLL_S)
        raise MeasurementFailed(
            f"{self.record.name} was not ready in {READY_TIMEOUT_S:g} s: {said}"
        )

    def stop(self) -> None:
        self.servers.processes.stop(self.record)


def start(servers: Servers, name: str, settings: Mapping[str, str]) -> Service:
    """Start a service with a gRPC port and return at once."""
    listens = {key: str(port) for key, port in service_ports(name, Ports.free()).items()}
    prefix = name.upper()
    own = {**listens, "KAFKA_URL": servers.kafka, **settings}
    ports = tuple(int(own[key]) for key in listens)
    environ = {f"{prefix}_{key}": value for key, value in own.items()}
    command = (sys.executable, "-m", f"services.{name}")
    spec = Spec(name, command, {**COMMON, **environ}, ROOT, ports, STOP_TIMEOUT_S)
    record = servers.processes.start(spec)
    return Service(servers, record, f"127.0.0.1:{own['PORT']}", f"127.0.0.1:{own['GRPC_PORT']}")
