"""`python -m bench.serving`: what an answer costs, in figures for bench/out/serving.json."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rich.console import Console

from bench.figures import OUT, Figure, machine, write
from bench.serving.rank import Say, measure_rank
from bench.stream.servers import Servers, started

Measure = Callable[[Servers, int, Say], list[Figure]]

MEASUREMENTS: Final[Mapping[str, Measure]] = {"rank": measure_rank}
TERMINATED: Final = 143


def main(argv: list[str], console: Console) -> int:
    """Measure what was asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(argv)
    # Whatever ends the measurement, the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    say = partial(console.print, highlight=False, soft_wrap=True)
    where = machine()
    say(f"machine: {where}")
    with started() as servers:
        for name in chosen.only or MEASUREMENTS:
            figures = MEASUREMENTS[name](servers, chosen.repeats, say)
            command = f"python -m bench.serving --only {name} --repeats {chosen.repeats}"
            write(figures, command=f"{command}  # {where}", path=OUT / "serving.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
