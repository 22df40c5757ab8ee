"""Start, watch and stop processes, and remember them across commands.

Every process leads a session of its own and is recorded with its pid and start time, so
that a pid which the system has given to another program is never signalled. What it starts
inherits RANKSTREAM_STATE: a child that outlives its parent is found by session and mark.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local.errors import PortTaken, StartFailed, StopFailed

MARK: Final = "RANKSTREAM_STATE"
# Set for all children by whoever imports Feast: prometheus_client's multi-process mode, in which no
# service of ours runs. Its files in place of numbers would be a fifth of what an answer costs.
NOT_INHERITED: Final = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
POLL_S: Final = 0.05
PORT_RELEASE_S: Final = 3.0
NO_OWNER: Final = "another user's process"
KILL_TIMEOUT_S: Final = 10.0
LOG_BYTES_MAX: Final = 32 * 1024 * 1024
LOG_TAIL_LINES: Final = 20
AUTOGROUP_TRIES: Final = 5
AUTOGROUP_WAIT_S: Final = 0.1


@dataclass(frozen=True)
class Spec:
    """A process as it should run."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]  # added to the environment of the supervisor
    cwd: Path
    ports: tuple[int, ...]  # on 127.0.0.1, free before it starts
    stop_timeout_s: float  # from SIGTERM to SIGKILL
    nice: int = 0  # how readily it leaves the processor to others, as in nice(1)


@dataclass(frozen=True)
class Record:
    """A process as it was started."""

    name: str
    pid: int
    started: float  # as `start_mark` gives it: tells a recycled pid apart
    ports: tuple[int, ...]
    stop_timeout_s: float

    def process(self) -> psutil.Process | None:
        """The process, or None if it has ended, whatever has its pid now."""
        try:
            process = psutil.Process(self.pid)
            same = start_mark(self.pid) == self.started
            running = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, FileNotFoundError):
            return None
        return process if same and running else None


@dataclass(frozen=True)
class Usage:
    """What processes use together, children included."""

    rss_bytes: int
    cpu_s: float  # user and system, since each started

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.rss_bytes + other.rss_bytes, self.cpu_s + other.cpu_s)


class Processes:
    """The processes that are recorded under one state folder.

    Stopping reaps those that this interpreter started; those of an earlier command are
    found through their records.
    """

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self._started: dict[int, subprocess.Popen[bytes]] = {}

    def log_path(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def record_path(self, name: str) -> Path:
        return self.state / "pids" / f"{name}.json"

    def records(self) -> dict[str, Record]:
        """All recorded processes by name, ended ones too, oldest first."""
        found = []
        for path in (self.state / "pids").glob("*.json"):
            fields = json.loads(path.read_text(encoding="utf-8"))
            found.append(Record(**fields | {"ports": tuple(fields["ports"])}))
        return {record.name: record for record in sorted(found, key=lambda r: r.started)}

    def running(self) -> dict[str, Record]:
        """Recorded processes that still run, oldest first."""
        self._reap()
        return {name: record for name, record in self.records().items() if record.process()}

    def start(self, spec: Spec) -> Record:
        """Start a process and record it.

        Raises: PortTaken before anything is started.
        """
        for port in spec.ports:
            require_free(spec.name, port)
        log = self.log_path(spec.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        with log.open("ab") as output:
            child = subprocess.Popen(
                spec.command,
                cwd=spec.cwd,
                env={**inherited, **spec.environ, MARK: str(self.state)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if spec.nice:
            _yield_to_others(child.pid, spec.nice)
        self._started[child.pid] = child
        record = Record(
            spec.name, child.pid, start_mark(child.pid), spec.ports, spec.stop_timeout_s
        )
        path = self.record_path(spec.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(asdict(record)), encoding="utf-8")
        scratch.replace(path)
        return record

    def stop(self, record: Record) -> None:
        """SIGTERM, a bounded wait, then SIGKILL for it and all that it started.

        Raises: StopFailed if something outlives SIGKILL; its record is kept.
        """
        leader = record.process()
        members = self._members(record)
        if leader is not None:
            with suppress(psutil.NoSuchProcess):
                leader.terminate()
            self._await_end([leader], record.stop_timeout_s)
        self._kill(record.name, {*members, *self._members(record)})
        if (child := self._started.pop(record.pid, None)) is not None:
            child.wait(KILL_TIMEOUT_S)
        self.record_path(record.name).unlink(missing_ok=True)

    def stop_leftovers(self) -> None:
        """Kill what recorded processes started and left behind outside their sessions.

        Raises: StopFailed if something outlives SIGKILL.
        """
        self._kill("a child", [p for p in psutil.process_iter() if self._marked(p)])

    def usage(self) -> Usage:
        """Memory and processor time of all that runs, children included."""
        total = Usage(0, 0.0)
        for record in self.running().values():
            total += self.usage_of(record)
        return total

    def usage_of(self, record: Record) -> Usage:
        """Memory and processor time of one process and its children."""
        total = Usage(0, 0.0)
        for process in self._members(record):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                cpu = process.cpu_times()
                total += Usage(process.memory_info().rss, cpu.user + cpu.system)
        return total

    def log_tail(self, name: str) -> str:
        """The last lines of a process's log."""
        path = self.log_path(name)
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64 * 1024))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def await_ready(self, record: Record, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return when `ready()` holds.

        Raises: StartFailed with the end of the log if the process ends or time runs out.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if ready():
                return
            self.require_running(record)
            if time.monotonic() > deadline:
                raise StartFailed(self._failure(record, f"was not ready after {timeout_s:g} s"))
            time.sleep(POLL_S)

    def require_running(self, record: Record) -> None:
        """Raises: StartFailed with the end of the log if the process has ended."""
        self._reap()
        if record.process() is None:
            raise StartFailed(self._failure(record, "ended before it was ready"))

    def _failure(self, record: Record, what: str) -> str:
        return (
            f"{record.name} (pid {record.pid}) {what}. Its last lines:\n"
            f"{self.log_tail(record.name)}\nThe whole log: {self.log_path(record.name)}"
        )

    def _members(self, record: Record) -> set[psutil.Process]:
        """The process, what it started, and what it left behind in its session."""
        found: set[psutil.Process] = set()
        leader = record.process()
        if leader is not None:
            found.add(leader)
            with suppress(psutil.NoSuchProcess):
                found.update(leader.children(recursive=True))
        for process in psutil.process_iter():
            with suppress(OSError):
                # The session's number and the mark: the number alone may be another's by now.
                if os.getsid(process.pid) == record.pid and self._marked(process):
                    found.add(process)
        return set(self._alive(found))

    def _marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            return bool(process.environ().get(MARK) == str(self.state))
        return False

    def _kill(self, name: str, processes: Iterable[psutil.Process]) -> None:
        remaining = self._alive(processes)
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        left = self._await_end(remaining, KILL_TIMEOUT_S)
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise StopFailed(
                f"{name}: pids {pids} outlived SIGKILL for {KILL_TIMEOUT_S:g} s. Their record is"
                " kept. See what they wait for (a stuck disk?), then make down."
            )

    def _alive(self, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
        self._reap()
        alive = []
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                # A JVM's first thread may be gone while others still hold its ports and files.
                ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
                if process.is_running() and not ended:
                    alive.append(process)
        return alive

    def _await_end(
        self, processes: Iterable[psutil.Process], timeout_s: float
    ) -> list[psutil.Process]:
        """Those still alive when all have ended or time has run out."""
        deadline = time.monotonic() + timeout_s
        alive = self._alive(processes)
        while alive and time.monotonic() < deadline:
            time.sleep(POLL_S)
            alive = self._alive(alive)
        return alive

    def _reap(self) -> None:
        for pid, child in list(self._started.items()):
            if child.poll() is not None:
                del self._started[pid]


def _yield_to_others(pid: int, nice: int) -> None:
    """Lower the priority of a process that leads a session.

    Where Linux weighs sessions against one another, a process's niceness counts inside of its
    session only; the session has one of its own, which others than root may set ten times a second
    (sched(7), autogroup).
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    autogroup = Path(f"/proc/{pid}/autogroup")
    for _ in range(AUTOGROUP_TRIES):
        try:
            autogroup.write_text(str(nice), encoding="ascii")
        except BlockingIOError:
            time.sleep(AUTOGROUP_WAIT_S)
        except OSError:
            return  # a kernel without, or a process that has ended
        else:
            return


def start_mark(pid: int) -> float:
    """When the process started, in a unit that no step of the wall clock changes.

    Raises: FileNotFoundError or psutil.NoSuchProcess if there is no such process.
    """
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    # proc(5): field 22 is the start in clock ticks since boot; the name, field 2, may hold
    # anything. psutil's create_time adds a boot time, which moves when the clock is set.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return float(fields[19])


def require_free(name: str, port: int) -> None:
    """Raises: PortTaken, saying by whom, if something listens on 127.0.0.1:port."""
    deadline = time.monotonic() + PORT_RELEASE_S
    # Nobody's, or another user's: it may be a process that was killed and whose threads, a
    # JVM's above all, have not all ended yet.
    while (listener := _listener(port)) == NO_OWNER and time.monotonic() < deadline:
        time.sleep(POLL_S)
    if listener is not None:
        raise PortTaken(
            f"{name} needs port {port}, where {listener} listens. {name} was not started."
            " Stop that, or move all ports: RANKSTREAM_PORT_BASE=20000 make up"
        )


def _listener(port: int) -> str | None:
    """Who listens on the port, for a person to read."""
    for connection in psutil.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return NO_OWNER
            with suppress(psutil.Error):
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"pid {connection.pid} ({command[:80]})"
    return None
