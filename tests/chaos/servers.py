"""The real broker, Redis, workers and snapshot disk of a fault run, and how each is broken."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections import deque
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from deploy.local.kafka import kafka_answers, kafka_spec
from deploy.local.processes import Processes, Record
from deploy.local.redis import redis_answers, redis_spec
from deploy.local.services import Ports, service_spec
from deploy.local.tools import Tools
from rankstream.adapters.kafka import create_topics
from tests.chaos.traffic import WINDOWS

ROOT: Final = Path(__file__).resolve().parents[2]
READY_TIMEOUT_S: Final = 60.0
# A power cut costs Redis with appendfsync everysec about the last second.
LOST_S: Final = 1.0
DISK_BYTES: Final = 2 << 30
SHRINKS_MAX: Final = 100  # attempts, while others write
FILE_ROOM_BYTES: Final = 64 << 10
# Detection of a dead worker is the group's; the broker's own floor of 6 s would fill the run.
SESSION_MS_MIN: Final = 1_000
SESSION_S: Final = 3


class Broker:
    """Kafka on one node. `kill` loses nothing that it has acked: the page cache outlives it."""

    def __init__(self, processes: Processes, tools: Tools, ports: Ports) -> None:
        self._processes, self._tools, self._ports = processes, tools, ports
        self.url = f"127.0.0.1:{ports.kafka}"
        self._record: Record | None = None

    def start(self) -> None:
        """Start it on the data that is there, and wait until it answers."""
        state = self._processes.state / "kafka"
        spec = kafka_spec(self._tools, state, self._ports.kafka, self._ports.kafka_controller)
        with (state / "server.properties").open("a", encoding="utf-8") as properties:
            properties.write(f"group.min.session.timeout.ms={SESSION_MS_MIN}\n")
        self._record = self._processes.start(spec)
        self._processes.await_ready(
            self._record, lambda: kafka_answers(self._ports.kafka), READY_TIMEOUT_S
        )
        create_topics(self.url)

    def kill(self) -> None:
        """kill -9."""
        assert self._record is not None
        _kill(self._processes, self._record)


class RedisServer:
    """Redis with an append-only file."""

    def __init__(self, processes: Processes, tools: Tools, ports: Ports) -> None:
        self._processes, self._tools, self._port = processes, tools, ports.redis
        self.url = f"redis://127.0.0.1:{ports.redis}/0"
        self._record: Record | None = None
        self._sizes: deque[tuple[float, int, int]] = deque(maxlen=200)  # when, inode, bytes

    @property
    def _folder(self) -> Path:
        return self._processes.state / "redis"

    def start(self) -> None:
        """Start it on the data that is there, and wait until it answers."""
        spec = redis_spec(self._tools.redis_server, self._folder, self._port)
        self._record = self._processes.start(spec)
        self._processes.await_ready(
            self._record, lambda: redis_answers(self._port), READY_TIMEOUT_S
        )

    def watch(self) -> None:
        """Note how long the append-only file is; call it a few times a second."""
        if (log := self._log()) is not None:
            status = log.stat()
            self._sizes.append((time.monotonic(), status.st_ino, status.st_size))

    def gained(self) -> int:
        """Bytes that the file has gained in about the last second; 0 too if it was rewritten."""
        log, now_s = self._log(), time.monotonic()
        if log is None:
            return 0
        status = log.stat()
        # An inode may be that of a file before the last: back to the rewrite and no further.
        of_this = takewhile(lambda noted: noted[1] == status.st_ino, reversed(self._sizes))
        before = [size for when_s, _, size in of_this if when_s <= now_s - LOST_S]
        return max(0, status.st_size - before[0]) if before else 0

    def kill_and_cut(self) -> int:
        """kill -9, then take what the file gained in the last second; the bytes that are gone."""
        assert self._record is not None
        _kill(self._processes, self._record)
        lost, log = self.gained(), self._log()
        assert log is not None
        os.truncate(log, log.stat().st_size - lost)
        return lost

    def _log(self) -> Path | None:
        """The file that grows: one in the folder with Redis 6, the last increment with Redis 7."""
        found = [*self._folder.glob("*.aof"), *self._folder.glob("*/*.incr.aof")]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)


class Disk:
    """The snapshot folder: a file system of its own where that may be mounted.

    Elsewhere `fill` limits the size of every file that the workers write (EFBIG), which hits
    snapshots, and the lake's larger files, which wait.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.full = False
        options = ("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
        self.mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0

    @property
    def way(self) -> str:
        """How it is filled."""
        return "tmpfs shrunk: ENOSPC" if self.mounted else "RLIMIT_FSIZE of the workers: EFBIG"

    def fill(self) -> None:
        """No byte more."""
        self.full = True
        for left in reversed(range(SHRINKS_MAX if self.mounted else 0)):
            used = os.statvfs(self.folder)
            try:
                self._resize((used.f_blocks - used.f_bfree) * used.f_frsize or used.f_frsize)
            except subprocess.CalledProcessError:
                # A snapshot has grown meanwhile: no tmpfs is made smaller than what it holds.
                if not left:
                    raise
            else:
                return

    def free(self) -> None:
        """Room again."""
        self.full = False
        if self.mounted:
            self._resize(DISK_BYTES)

    def limit(self, pid: int, log: Path) -> None:
        """Have the limit of file sizes of a process say whether the disk is full."""
        if self.mounted:
            return
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        room = log.stat().st_size + FILE_ROOM_BYTES if self.full else resource.RLIM_INFINITY
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, hard))

    def _resize(self, size: int) -> None:
        options = ["mount", "-o", f"remount,size={size}", str(self.folder)]
        subprocess.run(options, check=True, capture_output=True)

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)


class WorkerProcess:
    """One `python -m services.features`, started again and again under one name."""

    def __init__(self, processes: Processes, ports: Ports, port: int, name: str) -> None:
        self._processes, self._ports, self._port, self.name = processes, ports, port, name
        self._record: Record | None = None

    @property
    def log(self) -> Path:
        """What it has written, all its lives."""
        return self._processes.log_path(self.name)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Of the process, if it runs."""
        self._processes.running()  # reaps
        if self._record is None or self._record.process() is None:
            return None
        return self._record.pid

    def start(self, redis_url: str, snapshots: Path) -> None:
        """Start it and return at once."""
        state = self._processes.state
        settings = {
            "PORT": self._port,
            "REDIS_URL": redis_url,
            "SNAPSHOTS": snapshots,
            "SNAPSHOT_EVERY_S": 3,
            "LAKE_FLUSH_S": 2,
            "SESSION_TIMEOUT_S": SESSION_S,
            "LATENESS_MS": WINDOWS.lateness_ms,
            "CLICK_WINDOW_MS": WINDOWS.click_window_ms,
            "CONVERSION_WINDOW_MS": WINDOWS.conversion_window_ms,
            "SESSION_GAP_MS": WINDOWS.session_gap_ms,
            "CLOCK_SKEW_MS_MAX": WINDOWS.ahead_ms_max,
            "EVENT_AGE_MS_MAX": WINDOWS.behind_ms_max,
        }
        spec = service_spec("features", ROOT, self._ports, state)
        own = {f"FEATURES_{name}": str(value) for name, value in settings.items()}
        spec = replace(spec, name=self.name, environ={**spec.environ, **own}, ports=(self._port,))
        self._record = self._processes.start(spec)

    def kill(self) -> None:
        """kill -9."""
        assert self._record is not None
        _kill(self._processes, self._record)

    def terminate(self) -> None:
        """SIGTERM, and return at once."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, a bounded wait, SIGKILL."""
        if self._record is not None:
            self._processes.stop(self._record)


def _kill(processes: Processes, record: Record) -> None:
    process = record.process()
    if process is not None:
        process.kill()
        process.wait(READY_TIMEOUT_S)
    processes.running()  # reaps
