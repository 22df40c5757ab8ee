"""`python -m bench.serving [--only NAME ...]`: what an answer costs.

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
from bench.serving.preranking import preranking
from bench.serving.rank import rank
from bench.serving.recommend import recommend
from bench.serving.retrieval import SIZES, additions, retrieval

Say = Callable[[str], None]

MEASUREMENTS: Final[Mapping[str, Callable[[Say], list[Figure]]]] = {
    "additions": additions,
    "growth": growth,
    "preranking": preranking,
    "rank": rank,
    "recommend": recommend,
    **{f"retrieval_{name}": partial(retrieval, name) for name in SIZES},
}
# Ten million items take a quarter of an hour and more, and so does growth.
DEFAULT: Final = ("rank", "recommend", "preranking", "retrieval_1m", "additions")
TERMINATED: Final = 143


def main(argv: list[str], console: Console) -> int:
    """Measure what is asked for, by default all that takes minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(MEASUREMENTS))
    chosen = parser.parse_args(argv).only or DEFAULT
    # Whatever ends the measurement, the servers that it has started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    say = partial(console.print, highlight=False, soft_wrap=True)
    where = machine()
    say(f"machine: {where}")
    for name in chosen:
        figures = MEASUREMENTS[name](say)
        command = f"python -m bench.serving --only {name}  # {where}"
        write(figures, command=command, path=OUT / "serving.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
