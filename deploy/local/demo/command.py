"""`make demo`: the whole loop on real data, a verdict beside the truth, then up until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local.demo.loop import EXPERIMENT, FEATURES_ENVIRON, Loop, Options
from deploy.local.demo.verdict import Measured, checks, figures, render
from deploy.local.errors import LocalError
from deploy.local.report import Terminal
from deploy.local.system import System

MARKER: Final = "made-by-demo"
PIPE_WIDTH: Final = 110


def main(system: System, argv: Sequence[str], *, started_at_s: float) -> int:
    """Run the demo; 0 if every check holds. Without --exit it stays up until Ctrl-C."""
    options = _options(argv)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    system = System(
        system.root, system.ports, run=system.run, environ={"features": FEATURES_ENVIRON}
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell has started us in the background, with SIGINT ignored.
        signal.signal(number, signal.default_int_handler)
    first = not (system.run / "tools").exists()
    fresh_state(system)
    try:
        with Terminal(console) as report:
            run = Loop(system, options, report, started_at_s=started_at_s, first=first)
            measured = run.measure()
        render(console, measured, where=_where(system))
        out = _keep(system.root, measured, argv)
        console.print(f"Figures: {out}")
        passed = all(check.passed for check in checks(measured))
        if not options.exit:
            console.print("Still running. Ctrl-C stops it and cleans up.")
            _until_interrupted()
        return 0 if passed else 1
    finally:
        with Terminal(console) as report:
            system.down(report)


def _options(argv: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="make demo ARGS=", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop and clean up after the result")
    parser.add_argument("--seconds", type=float, default=90.0, help="of live traffic")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second")
    # Another draw of users and arms each time: the interval must cover across runs, not in one.
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of users, arms and choices; printed"
    )
    return Options(**vars(parser.parse_args(argv)))


def fresh_state(system: System) -> None:
    """An empty state folder: a run must be able to account for every event.

    Raises: LocalError if something runs, or if the folder was filled by `make up`.
    """
    if system.processes.running():
        raise LocalError("the system already runs here. Nothing was started. make down stops it.")
    marker = system.state / MARKER
    if system.state.exists() and not marker.exists():
        raise LocalError(
            f"{system.state} holds the data of make up, which the demo would mix with its own."
            " Nothing was started. Move that folder away, or remove it if it may go."
        )
    shutil.rmtree(system.state, ignore_errors=True)
    system.state.mkdir(parents=True)
    marker.touch()


def _where(system: System) -> Mapping[str, str]:
    ports = system.ports
    return {
        "scorecard": f"http://127.0.0.1:{ports.experiments}/v1/experiments/{EXPERIMENT}/scorecard",
        "monitor's report": f"http://127.0.0.1:{ports.monitor}/v1/report",
        "metrics": f"http://127.0.0.1:{ports.ranker_admin}/metrics",
        "ranker's API": f"http://127.0.0.1:{ports.ranker_admin}/docs",
        "ingest's API": f"http://127.0.0.1:{ports.ingest_admin}/docs",
        "experiments' API": f"http://127.0.0.1:{ports.experiments_admin}/docs",
        "ask for a slate": ".run/venv/bin/rankstream recommend 42",
        "what Feast says": ".run/venv/bin/python -m pipelines.features show --help",
        "processes": "make status",
    }


def _keep(root: Path, measured: Measured, argv: Sequence[str]) -> Path:
    """Write the figures; those of the other kind of run (first, later) are kept beside them."""
    out = root / "bench" / "out" / "demo.json"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True
    ).stdout.strip()
    command = f"make demo ARGS='{' '.join(argv)}'"
    rows = figures(measured, command=command, commit=commit)
    ids = {row["id"] for row in rows}
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    rows += [row for row in kept if row["id"] not in ids]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return out


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
