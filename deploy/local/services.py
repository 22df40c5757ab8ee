"""The six services as the local runtime runs them: ports and variables, said once."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.local.errors import PortTaken
from deploy.local.processes import Spec

# In the order in which they are started; stopped the other way round.
SERVICES: Final = ("ingest", "features", "retrieval", "ranker", "experiments", "monitor")
# A service gives itself 10 s to finish what it has begun.
SERVICE_STOP_TIMEOUT_S: Final = 15.0
# Where all share a few cores, answers go before what may be some milliseconds later.
NICE: Final[Mapping[str, int]] = {"features": 10, "monitor": 10, "experiments": 10}
# Below Linux's range of ephemeral ports, from which clients' connections take theirs.
RANDOM_BASE_MIN: Final = 10_000
RANDOM_BASE_MAX: Final = 32_000
RANDOM_TRIES: Final = 100

COMMON: Final = {
    "PYTHONUNBUFFERED": "1",
    # Two cores for all: a pool of threads per process only makes them wait for one another.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps a heap per thread otherwise; resident memory is part of what is promised.
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True)
class Ports:
    """Every port on 127.0.0.1 that the system listens on."""

    kafka: int = 9092
    kafka_controller: int = 9093
    redis: int = 6379
    ingest: int = 8001
    ingest_admin: int = 8101
    features: int = 8002
    retrieval: int = 8003
    retrieval_grpc: int = 9003
    ranker: int = 8004
    ranker_grpc: int = 9004
    ranker_admin: int = 8104
    ranker_admin_grpc: int = 9104
    experiments: int = 8005
    experiments_admin: int = 8105
    monitor: int = 8006

    @classmethod
    def at(cls, base: int) -> Ports:
        """Consecutive ports from `base`, so that checkouts do not collide."""
        names = list(cls.__dataclass_fields__)
        return cls(**{name: base + offset for offset, name in enumerate(names)})

    @classmethod
    def free(cls) -> Ports:
        """Consecutive ports that nobody listens on now.

        Raises: PortTaken if no such row is found.
        """
        chosen = random.Random()
        for _ in range(RANDOM_TRIES):
            ports = cls.at(chosen.randrange(RANDOM_BASE_MIN, RANDOM_BASE_MAX))
            if all(_is_free(port) for port in asdict(ports).values()):
                return ports
        raise PortTaken(f"no free row of ports after {RANDOM_TRIES} tries. Nothing was started.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def service_ports(name: str, ports: Ports) -> dict[str, int]:
    """Setting -> port of a service, in the order of `Ports`."""
    of = {key: port for key, port in asdict(ports).items() if key.split("_")[0] == name}
    return {f"{key}_port".removeprefix(f"{name}_").upper(): port for key, port in of.items()}


def admin_port(name: str, ports: Ports) -> int:
    """Where a service tells operators how it is, over HTTP; some have one port for everything."""
    own = service_ports(name, ports)
    return own.get("ADMIN_PORT", own["PORT"])


def service_environ(name: str, ports: Ports, state: Path) -> Mapping[str, str]:
    """The variables that a service is started with. A test has each service check its own."""
    kafka, redis = f"127.0.0.1:{ports.kafka}", f"redis://127.0.0.1:{ports.redis}/0"
    artifacts = str(state / "artifacts")
    own: dict[str, dict[str, str]] = {
        "ingest": {},
        "features": {
            "REDIS_URL": redis,
            "SNAPSHOTS": str(state / "snapshots"),
            "LAKE": str(state / "lake"),
        },
        "retrieval": {},
        "ranker": {
            "RETRIEVAL_URL": f"127.0.0.1:{ports.retrieval_grpc}",
            "REDIS_URL": redis,
            "ARTIFACTS": artifacts,
        },
        "experiments": {},
        "monitor": {"ARTIFACTS": artifacts},
    }
    listens = {key: str(port) for key, port in service_ports(name, ports).items()}
    variables = {"HOST": "127.0.0.1", **listens, "KAFKA_URL": kafka, **own[name]}
    prefix = name.upper()
    return COMMON | {f"{prefix}_{key}": value for key, value in variables.items()}


def service_spec(name: str, root: Path, ports: Ports, state: Path) -> Spec:
    """The process of a service."""
    return Spec(
        name,
        (sys.executable, "-m", f"services.{name}"),
        service_environ(name, ports, state),
        root,
        tuple(service_ports(name, ports).values()),
        SERVICE_STOP_TIMEOUT_S,
        NICE.get(name, 0),
    )
