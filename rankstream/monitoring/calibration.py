"""Is a pctr of 0.1 clicked one time in ten? Reliability bins that merge, and what they say.

Sums are integers (nano-clicks), so merging is associative, a retracted label takes away exactly
what it had added, and a replay is bit-equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from rankstream.monitoring.drift import Verdict

NANO = 1_000_000_000
# Closer together where click rates live than equal widths would be.
PCTR_EDGES = np.array(
    [0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9]
)
PCTR_BINS = len(PCTR_EDGES) + 1

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Impressions by bin of their pctr; every array int64, shape (PCTR_BINS,).

    `expected` is the sum of pctr and `expected_squares` that of pctr², both times 1e9.
    """

    n: Ints
    clicks: Ints
    expected: Ints
    expected_squares: Ints

    @classmethod
    def empty(cls) -> Self:
        zero = np.zeros(PCTR_BINS, dtype=np.int64)
        return cls(zero, zero, zero, zero)

    @classmethod
    def of(cls, pctr: Floats, impressions: Ints, clicks: Ints) -> Self:
        """Summary of label changes.

        Args:
            pctr: shape (k,), in [0, 1], as served.
            impressions: shape (k,), change of the impression count: 1, 0 or -1.
            clicks: shape (k,), change of the click count: 1, 0 or -1.
        """
        p = np.asarray(pctr, dtype=np.float64)
        bins = np.searchsorted(PCTR_EDGES, p, side="right")
        return cls(
            _sums(bins, impressions),
            _sums(bins, clicks),
            _sums(bins, impressions * np.rint(p * NANO).astype(np.int64)),
            _sums(bins, impressions * np.rint(p * p * NANO).astype(np.int64)),
        )

    def merge(self, other: Self) -> Self:
        return type(self)(
            self.n + other.n,
            self.clicks + other.clicks,
            self.expected + other.expected,
            self.expected_squares + other.expected_squares,
        )


@dataclass(frozen=True)
class Reliability:
    """Calibration in numbers; nan without impressions.

    `ece` is the mean gap of predicted and observed click rate over impressions, `mce` the largest
    gap of a bin with at least `n_bin_min` impressions, `ece_null_mean` the ECE that a perfectly
    calibrated model would show at this n. Source of ECE and MCE: Naeini et al., AAAI 2015.
    """

    n: int
    mean_predicted: float
    mean_observed: float
    ece: float
    ece_null_mean: float
    mce: float


@dataclass(frozen=True)
class ObservedExpected:
    """Clicks observed over clicks expected by now; `z` is the gap in standard errors.

    The standard error takes clicks as independent given pctr: users who click alike make it too
    small, which is why a verdict asks for a tolerance too.
    """

    n: int
    observed: int
    expected: float
    ratio: float
    z: float

    def verdict(self, *, tolerance: float, z_limit: float, expected_min: float) -> Verdict:
        """Fail if the ratio is more than `tolerance` from 1 and the gap is significant.

        Inconclusive while fewer than `expected_min` clicks are expected.
        """
        if self.expected < expected_min:
            return "inconclusive"
        far = abs(self.ratio - 1) > tolerance
        return "fail" if far and abs(self.z) > z_limit else "pass"


def reliability(summary: Calibration, *, n_bin_min: int = 100) -> Reliability:
    """Calibration error of a summary; retracted impressions are already gone from it."""
    n = int(summary.n.sum())
    if n <= 0:
        return Reliability(0, *([math.nan] * 5))
    used = summary.n > 0
    count = summary.n[used].astype(np.float64)
    predicted = summary.expected[used] / NANO
    gap = np.abs(predicted - summary.clicks[used])
    # E|N(0, v)| = sqrt(2 v / pi): what binomial noise alone puts into each bin.
    variance = np.maximum(predicted - summary.expected_squares[used] / NANO, 0.0)
    enough = count >= n_bin_min
    return Reliability(
        n=n,
        mean_predicted=float(predicted.sum()) / n,
        mean_observed=int(summary.clicks.sum()) / n,
        ece=float(gap.sum()) / n,
        ece_null_mean=float(np.sqrt(2 * variance / math.pi).sum()) / n,
        mce=float((gap / count)[enough].max()) if enough.any() else math.nan,
    )


def observed_over_expected(summaries: Iterable[tuple[Calibration, float]]) -> ObservedExpected:
    """O/E over summaries whose clicks have only partly arrived.

    Args:
        summaries: pairs of a summary and the share in [0, 1] of its clicks that should have been
            seen by now; 1 for impressions whose attribution window has closed.
    Returns: the ratio, nan if nothing is expected. Without the weights a window that ends now
        reads low with nothing wrong: its last clicks are still on their way.
    """
    n, observed, expected, variance = 0, 0, 0.0, 0.0
    for summary, weight in summaries:
        total = int(summary.expected.sum()) / NANO
        n += int(summary.n.sum())
        observed += int(summary.clicks.sum())
        expected += weight * total
        variance += weight * total - weight**2 * int(summary.expected_squares.sum()) / NANO
    return ObservedExpected(
        n=n,
        observed=observed,
        expected=expected,
        ratio=observed / expected if expected > 0 else math.nan,
        z=(observed - expected) / math.sqrt(variance) if variance > 0 else math.nan,
    )


def _sums(bins: npt.NDArray[np.intp], values: Ints) -> Ints:
    # np.bincount would add in floating point.
    totals = np.zeros(PCTR_BINS, dtype=np.int64)
    np.add.at(totals, bins, values)
    return totals
