"""`python -m tests.chaos`: break everything while a stream is folded, then compare every result.

A real Kafka and a real Redis, workers of `python -m services.features`, seeded traffic after the
MovieLens history; kill -9, joins and leaves, a broker restart, a Redis that loses its last second,
a full snapshot disk. Ends with 1 if anything differs from what the raw log says.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from deploy.local.report import Silent
from deploy.local.tools import provision
from rankstream import topics
from tests.chaos.differences import differences
from tests.chaos.faults import plan
from tests.chaos.produce import with_history
from tests.chaos.report import figures, show
from tests.chaos.run import NotSettled, Run
from tests.chaos.servers import ROOT
from tests.chaos.traffic import WINDOWS, traffic

OUT: Final = ROOT / "bench" / "out" / "chaos.json"


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="generated, history aside")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=20, help="kill -9 of a worker")
    parser.add_argument("--moves", type=int, default=5, help="joins and leaves")
    parser.add_argument("--timeout-s", type=float, default=1_100.0, help="up to the last commit")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file of the figures")
    parser.add_argument("--keep", action="store_true", help="keep the folder of logs and data")
    return parser.parse_args(argv)


def main(argv: list[str], console: Console) -> int:
    """One run; 0 if nothing differs and every fault was recovered from."""
    wanted = _arguments(argv)

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - started_s:6.0f} s  {text}", highlight=False)

    # Millions of tuples without a cycle among them: looking for one only costs time.
    gc.disable()
    started_s = time.monotonic()
    tools = provision(ROOT / ".run" / "tools", Silent())
    made = traffic(wanted.events, wanted.seed, topics.EVENTS.partitions)
    if tools.ml_100k.is_dir():
        made = with_history(made, tools.ml_100k)
    else:
        say(f"no MovieLens history: {tools.ml_100k} is not there")
    say(f"{made.events:,} events in {len(made.records):,} records, seed {wanted.seed}")
    folder = Path(tempfile.mkdtemp(prefix="rankstream-chaos-"))
    try:
        faults = plan(wanted.seed, kills=wanted.kills, moves=wanted.moves)
        outcome = Run(folder, tools, made, faults, wanted.timeout_s).run(say)
        say(f"final after {outcome.settled_s:.0f} s; comparing")
        areas = differences(outcome, WINDOWS)
    except NotSettled as error:
        console.print(f"[red]{error}")
        wanted.keep = True
        return 1
    finally:
        if wanted.keep:
            console.print(f"kept: {folder}", highlight=False)
        else:
            shutil.rmtree(folder)
    show(console, outcome, areas)
    command = f"python -m tests.chaos {' '.join(argv)}".strip()
    rows = figures(outcome, areas, events=made.events, command=command, commit=_commit())
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    unrecovered = sum(recovery.seconds is None for recovery in outcome.recoveries)
    found = sum(area.differences for area in areas)
    say(f"{found:,} differences, {unrecovered} faults not recovered from; {wanted.out}")
    return int(bool(found or unrecovered))


def _commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
