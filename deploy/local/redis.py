"""A Redis server on loopback, with an append-only file."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from deploy.local.processes import Spec

Fsync = Literal["everysec", "always"]
"""When a write is on the disk. Redis holds the feature service's commit point: `everysec` may
lose one second to a power cut (never to a crash of the process), `always` nothing."""


def redis_spec(server: Path, state: Path, port: int, fsync: Fsync = "everysec") -> Spec:
    """The process of a Redis that keeps its data in `state`."""
    state.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(state),
        "appendonly": "yes",
        "appendfsync": fsync,
        # Rows are written over and over: by default a file that ends at 64 MB is rewritten every
        # few seconds under load.
        "auto-aof-rewrite-min-size": "256mb",
        # The append-only file is the store; a dump beside it would double the writes.
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    command = [str(server)]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Spec("redis", tuple(command), {}, state, (port,), stop_timeout_s=10)


def redis_answers(port: int) -> bool:
    """Whether the server answers PING with PONG: not while it loads its file."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
