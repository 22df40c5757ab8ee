"""The whole system on one machine: start it, ask how it is, stop it.

What the command line, the demo and the tests share. State lives in one folder; a second
`System` on the same folder sees and stops what the first one started.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import psutil

from deploy.local.errors import Busy, LocalError, StartFailed
from deploy.local.kafka import kafka_answers, kafka_spec
from deploy.local.processes import Processes, Record, Usage
from deploy.local.redis import Fsync, redis_answers, redis_spec
from deploy.local.report import Report
from deploy.local.services import SERVICES, Ports, admin_port, service_spec
from deploy.local.tools import Tools, provision

SERVERS: Final = ("kafka", "redis")
NEEDS_MODEL: Final = ("retrieval", "ranker")
SERVER_TIMEOUT_S: Final = 60.0
LIVE_TIMEOUT_S: Final = 60.0
READY_TIMEOUT_S: Final = 60.0
PROBE_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.1
PORT_BASE: Final = "RANKSTREAM_PORT_BASE"


@dataclass(frozen=True)
class Status:
    """One process, as it is now."""

    name: str
    state: str  # running, ended, not started
    pid: int | None
    rss_bytes: int
    uptime_s: float
    health: str  # ok, or what is wrong
    ports: tuple[int, ...]

    @property
    def healthy(self) -> bool:
        return self.state == "running" and self.health == "ok"


class System:
    """Kafka, Redis and the services of one checkout.

    Args:
        root: the checkout; `python -m services.<name>` runs there.
        ports: where all listen.
        run: the folder of tools and state; `.run` of the checkout unless a test gives its own.
        redis_fsync: see `redis.Fsync`.
        environ: more variables of a service, by its name; they win over the table's.
    """

    def __init__(
        self,
        root: Path,
        ports: Ports,
        *,
        run: Path | None = None,
        redis_fsync: Fsync = "everysec",
        environ: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.root = root
        self.ports = ports
        self.run = run or root / ".run"
        self.state = self.run / "state"
        self.processes = Processes(self.state)
        self._redis_fsync = redis_fsync
        self._environ = environ or {}

    @classmethod
    def from_environ(cls, root: Path, environ: Mapping[str, str]) -> System:
        """The system of a checkout: where it runs already, else where RANKSTREAM_PORT_BASE says.

        The variable holds a port, the first of a consecutive row, or `random`.
        Raises: LocalError if it holds something else.
        """
        system = cls(root, Ports())
        if system.processes.running():
            recorded = json.loads(system._ports_path.read_text(encoding="utf-8"))
            return cls(root, Ports(**recorded))
        base = environ.get(PORT_BASE, "")
        if not base:
            return system
        if base == "random":
            return cls(root, Ports.free())
        if not base.isdecimal() or not 1024 <= int(base) <= 65_000:
            raise LocalError(
                f"{PORT_BASE} is {base!r}, allowed: 1024 to 65000, or random. Nothing was done."
            )
        return cls(root, Ports.at(int(base)))

    @property
    def _ports_path(self) -> Path:
        return self.state / "ports.json"

    @property
    def kafka_url(self) -> str:
        return f"127.0.0.1:{self.ports.kafka}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.ports.redis}/0"

    def provision(self, report: Report) -> Tools:
        """Bring in the tools; nothing to do from the second time on."""
        return provision(self.run / "tools", report)

    def up(self, report: Report) -> None:
        """Everything that does not run yet, until all of it is ready, or waits for a first model.

        Raises: LocalError by name; what has started goes on running, `down` stops it.
        """
        self.start_servers(self.provision(report), report)
        self.start_services(SERVICES, report)
        if (self.state / "artifacts").exists():
            self.await_ready(SERVICES, report, READY_TIMEOUT_S)
            return
        self.await_ready(
            [name for name in SERVICES if name not in NEEDS_MODEL], report, READY_TIMEOUT_S
        )
        report.say(
            f"{' and '.join(NEEDS_MODEL)} wait for their first model:"
            f" .run/venv/bin/python -m pipelines run --help"
        )

    def start_servers(self, tools: Tools, report: Report) -> None:
        """Kafka with its topics, and Redis.

        Raises: PortTaken, StartFailed, Busy.
        """
        with self.exclusively():
            self._record_ports()
            running = self.processes.running()
            report.step("Kafka and Redis", 0, 3)
            if "kafka" not in running:
                spec = kafka_spec(
                    tools, self.state / "kafka", self.ports.kafka, self.ports.kafka_controller
                )
                running["kafka"] = self.processes.start(spec)
            if "redis" not in running:
                spec = redis_spec(
                    tools.redis_server, self.state / "redis", self.ports.redis, self._redis_fsync
                )
                running["redis"] = self.processes.start(spec)
            for done, (name, answers) in enumerate(self._answers().items()):
                self.processes.await_ready(running[name], answers, SERVER_TIMEOUT_S)
                report.step("Kafka and Redis", done + 1, 3)
            # Not at the top: `down` and `status` need no Kafka client.
            from rankstream.adapters.kafka import create_topics

            create_topics(self.kafka_url)
            report.step("Kafka and Redis", 3, 3)

    def start_services(self, names: Iterable[str], report: Report) -> None:
        """The services, until each answers over HTTP, ready or not.

        Raises: PortTaken, StartFailed, Busy.
        """
        names = tuple(names)
        with self.exclusively():
            self._record_ports()
            running = self.processes.running()
            report.step("services", 0, len(names))
            for name in names:
                if name not in running:
                    spec = service_spec(name, self.root, self.ports, self.state)
                    more = {**spec.environ, **self._environ.get(name, {})}
                    running[name] = self.processes.start(replace(spec, environ=more))
            for done, name in enumerate(names):
                self.processes.await_ready(running[name], self._live(name), LIVE_TIMEOUT_S)
                report.step("services", done + 1, len(names))

    def await_ready(self, names: Iterable[str], report: Report, timeout_s: float) -> None:
        """Return when /readyz of each service says yes.

        Raises: StartFailed with each reason when time runs out, or with the log of one that ended.
        """
        names = tuple(names)
        waiting = dict.fromkeys(names, "")
        deadline = time.monotonic() + timeout_s
        while True:
            report.step("ready", len(names) - len(waiting), len(names))
            records = self.processes.records()
            for name in tuple(waiting):
                waiting[name] = self.health(name)
                if waiting[name] == "ok":
                    del waiting[name]
                else:
                    self.processes.require_running(records[name])
            if not waiting:
                report.step("ready", len(names), len(names))
                return
            if time.monotonic() > deadline:
                reasons = "; ".join(f"{name}: {why}" for name, why in waiting.items())
                raise StartFailed(
                    f"not ready after {timeout_s:g} s: {reasons}. All still run. A service that"
                    " waits for its first model gets one from make demo; else see make logs."
                )
            time.sleep(POLL_S)

    def down(self, report: Report) -> None:
        """Stop all that is recorded, last started first, and make sure that nothing remains.

        Raises: StopFailed, Busy.
        """
        with self.exclusively():
            records = list(self.processes.records().values())
            for done, record in enumerate(reversed(records)):
                report.step("stopping", done, len(records))
                self.processes.stop(record)
            self.processes.stop_leftovers()
            report.step("stopping", len(records), len(records))

    def status(self) -> list[Status]:
        """Every process that belongs to the system, started or not."""
        records = self.processes.records()
        return [self._status(name, records.get(name)) for name in (*SERVERS, *SERVICES)]

    def usage(self) -> Usage:
        """Memory and processor time of all that runs, children included."""
        return self.processes.usage()

    def health(self, name: str) -> str:
        """`ok`, or what is wrong with a process that runs."""
        if name in SERVERS:
            return "ok" if self._answers()[name]() else "does not answer"
        return probe(admin_port(name, self.ports)) or "does not answer"

    def _answers(self) -> dict[str, Callable[[], bool]]:
        # Redis first: it is up long before Kafka.
        return {
            "redis": lambda: redis_answers(self.ports.redis),
            "kafka": lambda: kafka_answers(self.ports.kafka),
        }

    def _live(self, name: str) -> Callable[[], bool]:
        port = admin_port(name, self.ports)
        return lambda: probe(port) is not None

    def _record_ports(self) -> None:
        """Before the first process: a command from another shell must know where they listen."""
        self._ports_path.write_text(json.dumps(asdict(self.ports)), encoding="utf-8")

    def _status(self, name: str, record: Record | None) -> Status:
        process = record.process() if record else None
        if record is None or process is None:
            state = "ended" if record else "not started"
            ports = record.ports if record else ()
            return Status(name, state, None, 0, 0.0, "-", ports)
        try:
            uptime_s = time.time() - process.create_time()
        except psutil.NoSuchProcess:
            uptime_s = 0.0
        rss_bytes = self.processes.usage_of(record).rss_bytes
        health = self.health(name)
        return Status(name, "running", record.pid, rss_bytes, uptime_s, health, record.ports)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """One `up` or `down` at a time. Raises: Busy."""
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"another up or down is at work on {self.state}. Nothing was done."
                    " Wait for it, then try again."
                ) from None
            yield


def probe(port: int) -> str | None:
    """What /readyz on 127.0.0.1:port says: `ok`, the reasons why not, or None without answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    if response.status == http.client.OK:
        return "ok"
    try:
        reasons = json.loads(body)["reasons"]
        return ", ".join(f"{part}: {reason}" for part, reason in reasons.items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {response.status}"
