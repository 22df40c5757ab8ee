"""Has a feature moved? PSI and KS of two histograms, with what chance alone would give.

A PSI limit means nothing without n. Under no drift PSI / (1/n + 1/m) is close to chi-square with
B - 1 degrees of freedom, so its mean is (B - 1)(1/n + 1/m): Yurdakul and Naranjo, "Statistical
properties of the population stability index", 2020. Drift is called only if the PSI is both
significant and, after that mean is taken off, large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, kolmogorov

from rankstream.monitoring.histogram import Histogram

ALPHA = 0.001
PSI_LIMIT = 0.1
N_MIN = 200

Verdict = Literal["pass", "fail", "inconclusive", "error"]


@dataclass(frozen=True)
class Drift:
    """How far `current` is from `reference`.

    `psi` and `ks` are as measured; `psi_excess` is PSI less its mean under no drift, never below
    0; the p-values belong to one comparison.
    """

    psi: float
    psi_null_mean: float
    psi_p_value: float
    ks: float
    ks_p_value: float
    n_reference: int
    n_current: int

    @property
    def psi_excess(self) -> float:
        return max(0.0, self.psi - self.psi_null_mean)

    def verdict(
        self,
        *,
        comparisons: int = 1,
        alpha: float = ALPHA,
        psi_limit: float = PSI_LIMIT,
        n_min: int = N_MIN,
    ) -> Verdict:
        """Fail if significant at alpha / comparisons (Bonferroni) and past `psi_limit`.

        Inconclusive while either side has fewer than `n_min` values.
        """
        assert comparisons >= 1, "a check is at least one comparison"
        if min(self.n_reference, self.n_current) < n_min:
            return "inconclusive"
        significant = self.psi_p_value <= alpha / comparisons
        return "fail" if significant and self.psi_excess > psi_limit else "pass"


def drift(reference: Histogram, current: Histogram) -> Drift:
    """Compare two histograms with the same edges; nan where a side is empty."""
    assert np.array_equal(reference.edges, current.edges), "drift needs equal edges"
    n, m = reference.n, current.n
    if n == 0 or m == 0:
        nan = math.nan
        return Drift(nan, nan, nan, nan, nan, n, m)
    distance, bins = psi(reference.counts, current.counts)
    noise = 1 / n + 1 / m
    gap = ks(reference.counts[:-1], current.counts[:-1])
    return Drift(
        psi=distance,
        psi_null_mean=(bins - 1) * noise,
        psi_p_value=float(chdtrc(bins - 1, distance / noise)) if bins > 1 else 1.0,
        ks=gap,
        ks_p_value=_ks_p_value(gap, n - reference.missing, m - current.missing),
        n_reference=n,
        n_current=m,
    )


def psi(reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64]) -> tuple[float, int]:
    """Population stability index sum (q - p) ln(q / p), and the number of bins it rests on.

    Bins empty on both sides say nothing and are left out; half a count is added to the others, so
    that a bin empty on one side is far and not infinitely far (Jeffreys).
    """
    used = (reference > 0) | (current > 0)
    bins = int(used.sum())
    p = (reference[used] + 0.5) / (reference.sum() + 0.5 * bins)
    q = (current[used] + 0.5) / (current.sum() + 0.5 * bins)
    return float(np.sum((q - p) * np.log(q / p))), bins


def ks(reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64]) -> float:
    """Largest gap of the cumulative shares at the bin ends: Kolmogorov-Smirnov of binned values.

    Never above the statistic of the raw values. 0 if either side is empty.
    """
    n, m = int(reference.sum()), int(current.sum())
    if n == 0 or m == 0:
        return 0.0
    return float(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m).max())


def _ks_p_value(gap: float, n: int, m: int) -> float:
    if n == 0 or m == 0:
        return 1.0
    return float(kolmogorov(math.sqrt(n * m / (n + m)) * gap))
