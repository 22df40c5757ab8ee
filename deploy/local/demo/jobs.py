"""Run a batch job of `pipelines`: its progress becomes bars here, its last line the result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from threading import Timer
from typing import Any, Final

from deploy.local.errors import LocalError
from deploy.local.report import Report

TIMEOUT_S: Final = 300.0
_TOLD_MAX: Final = 40


def run_job(
    module: str, *arguments: str, root: Path, environ: Mapping[str, str], report: Report
) -> Any:
    """What `python -m module arguments` says on its last line.

    Raises: LocalError with the end of its stderr if it fails, or after TIMEOUT_S.
    """
    command = [sys.executable, "-m", module, *arguments]
    said: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        with subprocess.Popen(
            command,
            cwd=root,
            env={**os.environ, **environ},
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as job:
            watchdog = Timer(TIMEOUT_S, job.kill)
            watchdog.start()
            for line in job.stderr or ():
                if not _shown(line, report):
                    said.append(line)
            job.wait()
            watchdog.cancel()
        if job.returncode != 0:
            raise LocalError(f"{module} ended with {job.returncode}:\n{''.join(said[-_TOLD_MAX:])}")
        out.seek(0)
        return json.loads(out.read().strip().splitlines()[-1])


def _shown(line: str, report: Report) -> bool:
    """True if the line was progress."""
    if not line.startswith('{"step":'):
        return False
    told = json.loads(line)
    report.step(told["step"], told["done"], told["total"])
    return True
