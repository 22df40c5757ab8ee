"""`python -m bench.serving [--only NAME ...] [--minutes N]`: what an answer costs.

Figures go to bench/out/serving.json; those of other measurements there stay.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from rich.console import Console

from bench.figures import OUT, Figure, machine, write
from bench.serving.growth import growth
from bench.serving.overload import overload
from bench.serving.preranking import preranking
from bench.serving.rank import rank
from bench.serving.recommend import recommend
from bench.serving.retrieval import SIZES, additions, retrieval
from bench.serving.shards import sharded
from bench.serving.soak import MINUTES, soak
from bench.serving.swap import swap

Say = Callable[[str], None]
Measurement = Callable[[Say], list[Figure]]

MEASUREMENTS: Final[Mapping[str, Measurement]] = {
    "additions": additions,
    "growth": growth,
    "preranking": preranking,
    "overload": overload,
    "rank": rank,
    "recommend": recommend,
    "shards": sharded,
    "soak": soak,
    "swap": swap,
    **{f"retrieval_{name}": partial(retrieval, name) for name in SIZES},
}
# Ten million items take a quarter of an hour and more, and so does growth; the soak half an hour.
DEFAULT: Final = (
    "rank",
    "recommend",
    "preranking",
    "overload",
    "swap",
    "retrieval_1m",
    "additions",
)
TERMINATED: Final = 143


def main(argv: list[str], console: Console) -> int:
    """Measure what is asked for, by default all that takes minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(MEASUREMENTS))
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of the soak")
    options = parser.parse_args(argv)
    soaked = partial(soak, minutes=options.minutes)
    measurements: dict[str, Measurement] = {**MEASUREMENTS, "soak": soaked}
    # Whatever ends the measurement, the servers that it has started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    say = partial(console.print, highlight=False, soft_wrap=True)
    where = machine()
    say(f"machine: {where}")
    for name in options.only or DEFAULT:
        figures = measurements[name](say)
        command = f"python -m bench.serving --only {name}  # {where}"
        write(figures, command=command, path=OUT / "serving.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
