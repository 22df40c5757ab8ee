"""`python -m bench.quality [--only NAME ...]`: measure models on public logs, five seeds each.

KuaiRand is read from $RANKSTREAM_DATA/kuairand and left out if it is not there; MovieLens 100K is
that of the demo. Figures go to bench/out/quality.json; those of other measurements there stay.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.figures import OUT, ROOT, Figure, machine, write
from bench.quality import debias, kuairand, movielens
from bench.quality.cold import cold_items
from bench.quality.leave_one_out import leave_one_out
from bench.quality.training import training
from bench.quality.two_stage import two_stage
from deploy.local.report import Silent
from deploy.local.tools import provision

Say = Callable[[str], None]


def measure_movielens(say: Say) -> list[Figure]:
    """What fresh features are worth; which score finds the film that was liked last; new films."""
    folder = provision(ROOT / ".run" / "tools", Silent()).ml_100k
    found = [*movielens.freshness(folder, say), *leave_one_out(folder, say)]
    return [*found, *cold_items(folder, say), *two_stage(folder, say)]


def measure_kuairand(say: Say) -> list[Figure]:
    """References and the product; nothing where the data is absent."""
    folder = Path(os.environ.get("RANKSTREAM_DATA", "")) / "kuairand"
    if not (folder / "impressions.parquet").exists():
        say(f"kuairand is left out: {folder} is absent; set RANKSTREAM_DATA")
        return []
    if not kuairand.ATTRIBUTES.items() <= os.environ.items():
        command = [sys.executable, "-m", "bench.quality", "--only", "kuairand"]
        subprocess.run(command, env={**os.environ, **kuairand.ATTRIBUTES}, check=True)
        return []  # it has written its figures
    found = [*kuairand.references(folder, say), *kuairand.stream(folder, say)]
    return [*found, *kuairand.gains(found)]


def measure_debias(say: Say) -> list[Figure]:
    """What is left of position bias after its correction, on simulated users."""
    return debias.debiasing(provision(ROOT / ".run" / "tools", Silent()).ml_100k, say)


MEASUREMENTS: Final[Mapping[str, Callable[[Say], list[Figure]]]] = {
    "movielens": measure_movielens,
    "kuairand": measure_kuairand,
    "training": training,
    "debias": measure_debias,
}


def main(argv: list[str], console: Console) -> int:
    """Measure what is asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(MEASUREMENTS))
    chosen = parser.parse_args(argv).only or list(MEASUREMENTS)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    say(f"machine: {machine()}")
    for name in chosen:
        figures = MEASUREMENTS[name](say)
        command = f"python -m bench.quality --only {name}  # {machine()}"
        write(figures, command=command, path=OUT / "quality.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console(highlight=False)))
