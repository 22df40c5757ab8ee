"""`python -m deploy.local`: provision, up, down, status, logs, demo."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.errors import LocalError
from deploy.local.report import Terminal
from deploy.local.services import SERVICES
from deploy.local.system import SERVERS, System
from rankstream.errors import RankstreamError

ROOT = Path(__file__).resolve().parents[2]
STARTED_AT = "RANKSTREAM_STARTED_AT"
FOLLOW_LINES = 200


def main(argv: list[str], console: Console) -> int:
    """Run one command; the process's exit code."""
    arguments, rest = _parser().parse_known_args(argv)
    if rest and arguments.command != "demo":
        _parser().error(f"unknown arguments: {' '.join(rest)}")
    try:
        system = System.from_environ(ROOT, os.environ)
        if arguments.command == "demo":
            return _demo(system, rest)
        if arguments.command == "status":
            return show_status(system, console)
        if arguments.command == "logs":
            return show_logs(system, arguments.name, follow=arguments.follow)
        with Terminal(console) as report:
            if arguments.command == "provision":
                system.provision(report)
            elif arguments.command == "up":
                system.up(report)
            else:
                system.down(report)
    except (LocalError, RankstreamError) as error:
        # Not through rich: a log's brackets are no markup.
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What has started still runs: make down stops it.\n")
        return 130
    if arguments.command == "up":
        show_status(system, console)
    if arguments.command == "down":
        console.print("Nothing runs.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("provision", help="bring Java, Kafka, Redis and MovieLens into .run/tools")
    commands.add_parser("up", help="start everything and wait until it is ready")
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="what runs; exit code 1 if anything is unhealthy")
    logs = commands.add_parser("logs", help="the last lines of the logs")
    logs.add_argument("name", nargs="?", choices=[*SERVERS, *SERVICES])
    logs.add_argument("--follow", action="store_true", help="go on as the log grows")
    commands.add_parser("demo", help="the whole loop on real data", add_help=False)
    return parser


def show_status(system: System, console: Console) -> int:
    """Print every process; 0 if all are healthy, else 1."""
    table = Table(box=None, header_style="bold")
    for column in ("process", "state", "pid", "MB", "up", "health", "ports"):
        table.add_column(column, justify="right" if column in ("pid", "MB", "up") else "left")
    statuses = system.status()
    for status in statuses:
        running = status.pid is not None
        table.add_row(
            status.name,
            status.state,
            str(status.pid) if running else "",
            f"{status.rss_bytes / 1e6:.0f}" if running else "",
            f"{status.uptime_s:.0f} s" if running else "",
            status.health,
            " ".join(map(str, status.ports)),
            style="" if status.healthy else "red",
        )
    console.print(table)
    return 0 if all(status.healthy for status in statuses) else 1


def show_logs(system: System, name: str | None, *, follow: bool) -> int:
    """Print the last lines of one log or of all; with `follow`, until Ctrl-C."""
    names = [name] if name else [*SERVERS, *SERVICES]
    paths = [path for path in map(system.processes.log_path, names) if path.exists()]
    if not paths:
        sys.stderr.write("no_logs: nothing has been started here yet. make up starts it.\n")
        return 1
    if follow or name:
        command = ["tail", "-n", str(FOLLOW_LINES), *(["-F"] if follow else []), *map(str, paths)]
        return subprocess.run(command, check=False).returncode
    for path in paths:
        sys.stdout.write(f"==> {path} <==\n")
        # As it was written: a log's brackets are no markup, its lines are not the window's.
        sys.stdout.write(system.processes.log_tail(path.stem) + "\n")
    return 0


def _demo(system: System, rest: list[str]) -> int:
    """The demo measures its first run from the moment that make was started."""
    # Not at the top: it imports the training libraries, which takes seconds.
    from deploy.local.demo.command import main as demo

    started_at_s = float(os.environ.get(STARTED_AT) or time.time())
    return demo(system, rest, started_at_s=started_at_s)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], Console()))
