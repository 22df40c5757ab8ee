"""The features service as a process, on the embedded Kafka and Redis of conftest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass
class Service:
    """One process; `environ` holds its FEATURES_ variables."""

    environ: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return at once."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.features"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environ},
                stdout=out,
                stderr=out,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def wait_exit(self, timeout_s: float) -> int:
        """The exit code of a process that ends by itself."""
        assert self.process is not None
        return self.process.wait(timeout=timeout_s)

    def get(self, path: str) -> httpx.Response | None:
        """The answer; None while nothing listens."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.environ['FEATURES_PORT']}{path}", timeout=5)
        except httpx.TransportError:
            return None

    def counts(self) -> dict[str, Any]:
        """GET /v1/counts; empty while nothing listens."""
        answer = self.get("/v1/counts")
        return answer.json() if answer is not None else {}

    def wait(self, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0) -> None:
        """Return once the service is caught up and its counts are as wanted."""
        deadline = time.monotonic() + timeout_s
        counts: dict[str, Any] = {}
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            counts = self.counts()
            if counts.get("caught_up") and holds(counts):
                return
            time.sleep(POLL_S)
        raise AssertionError(
            f"not within {timeout_s:g} s: {counts}\n{self.log.read_text()[-4000:]}"
        )
