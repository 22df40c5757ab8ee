"""Training as rows grow: CPU time, wall time and memory of each family, each in its own process.

Rows are drawn, as wide as the product's: a few features make a click, by a bend and a product of
two that a linear model does not see; others make a purchase. A process holds the rows, of float32,
and the fit; its peak memory is that of both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import ROOT, Figure, figure
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.train.families import FITS, Family
from pipelines.train.neural_rankers import fit_mmoe
from pipelines.train.rankers import Ranker
from rankstream.features import spec

ROWS: Final = (100_000, 1_000_000, 10_000_000)
FAMILIES: Final = (
    Family.LOGISTIC_REGRESSION,
    Family.XGBOOST,
    Family.LIGHTGBM,
    Family.RANDOM_FOREST,
    Family.MMOE,
)
TEST_ROWS: Final = 50_000
CHUNK_ROWS: Final = 100_000
TIMEOUT_S: Final = 10_800  # ten million rows take the slowest half an hour and more
SEED: Final = 1


@dataclass(frozen=True, eq=False)
class Drawn:
    """n rows: `features` float32, shape (n, spec.WIDTH); labels 0 or 1, shape (n,)."""

    features: npt.NDArray[np.float32]
    clicked: npt.NDArray[np.uint8]
    purchased: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Fit:
    """One fit; `rows_gb` is what the rows take, `auc` that of clicks on other rows."""

    cpu_s: float
    wall_s: float
    peak_gb: float
    rows_gb: float
    auc: float


def draw(n: int, *, seed: int) -> Drawn:
    """The rows of a seed, the first ones the same for every n."""
    rng = np.random.default_rng(seed)
    features = np.empty((n, spec.WIDTH), np.float32)
    clicked, purchased = np.empty(n, np.uint8), np.empty(n, np.int8)
    for start in range(0, n, CHUNK_ROWS):
        part = features[start : start + CHUNK_ROWS]
        part[:] = rng.standard_normal((CHUNK_ROWS, spec.WIDTH), np.float32)[: len(part)]
        chance = rng.random((CHUNK_ROWS, 2))[: len(part)]
        a, b, c, d = (part[:, k].astype(np.float64) for k in range(4))
        click = -1.0 + a + np.abs(b) + 0.8 * c * d
        buy = -3.0 + 0.7 * a + 1.2 * part[:, 4]
        clicked[start : start + CHUNK_ROWS] = chance[:, 0] < 1.0 / (1.0 + np.exp(-click))
        purchased[start : start + CHUNK_ROWS] = chance[:, 1] < 1.0 / (1.0 + np.exp(-buy))
    return Drawn(features, clicked, purchased)


def fitted(family: Family, rows: Drawn) -> Ranker:
    """A ranker of the family."""
    if family is Family.MMOE:
        return fit_mmoe(rows.features, rows.clicked, rows.purchased, seed=SEED)
    return FITS[family](rows.features, rows.clicked, seed=SEED)


def measured(family: Family, n: int) -> Fit:
    """The fit of n rows in this process."""
    rows = draw(n, seed=SEED)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    ranker = fitted(family, rows)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    test = draw(TEST_ROWS, seed=SEED + 1)
    auc = ranker_metrics(test.clicked, ranker.predict(test.features))["auc"]
    return Fit(cpu_s, wall_s, peak_gb, rows.features.nbytes / 1e9, auc)


def beside(family: Family, n: int) -> Fit:
    """The fit of n rows in a process of its own.

    Raises: subprocess.CalledProcessError: it failed, and has said why; subprocess.TimeoutExpired.
    """
    command = [sys.executable, "-m", "bench.quality.training", family.value, str(n)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S)
    return Fit(**json.loads(done.stdout))


def growth(costs: Mapping[int, float]) -> float:
    """The exponent e of cost ~ rows^e between the least and the most rows.

    >>> growth({100: 1.0, 10_000: 100.0})
    1.0
    """
    least, most = min(costs), max(costs)
    return float(np.log(costs[most] / costs[least]) / np.log(most / least))


def training(say: Callable[[str], None], sizes: Sequence[int] = ROWS) -> list[Figure]:
    """quality.train.{family}.{s_per_million,gb_at_10m,...}, and those of the slowest and largest.

    Of the most rows: CPU seconds per million, peak memory; and the exponent that CPU seconds grow
    with from the least to the most.
    """
    most = max(sizes)
    found: dict[Family, dict[int, Fit]] = {}
    for family in FAMILIES:
        found[family] = {}
        for n in sizes:
            one = beside(family, n)
            say(f"training {family}, {n:,} rows: {one}")
            found[family][n] = one
    out = []
    for family, fits in found.items():
        name, last = f"quality.train.{family}", fits[most]
        out += [
            figure(f"{name}.s_per_million", [last.cpu_s / most * 1e6], "CPU s"),
            figure(f"{name}.gb_at_{most // 1_000_000}m", [last.peak_gb], "GB"),
            figure(f"{name}.growth", [growth({n: fit.cpu_s for n, fit in fits.items()})], ""),
            figure(f"{name}.auc", [last.auc], ""),
        ]
    return [*out, *_worst(found, most)]


def _worst(found: Mapping[Family, Mapping[int, Fit]], most: int) -> list[Figure]:
    fits = [held[most] for held in found.values()]
    return [
        figure("quality.train.s_per_million", [max(f.cpu_s for f in fits) / most * 1e6], "CPU s"),
        figure(f"quality.train.gb_at_{most // 1_000_000}m", [max(f.peak_gb for f in fits)], "GB"),
    ]


def main(argv: list[str]) -> int:
    """`python -m bench.quality.training FAMILY ROWS`: one fit, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.quality.training")
    parser.add_argument("family", type=Family, choices=FAMILIES)
    parser.add_argument("rows", type=int)
    asked = parser.parse_args(argv)
    sys.stdout.write(json.dumps(asdict(measured(asked.family, asked.rows))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
