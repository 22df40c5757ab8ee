"""Means and standard deviations of features, and how sure one can be of them.

Rows of one user, and rows of one item, are alike: a million rows of a thousand users say little
more of users than a thousand rows would. Standard errors are therefore clustered both ways.
Source: Cameron, Gelbach and Miller, "Robust Inference with Multiway Clustering", JBES 2011.
Not accounted for: what all rows of a day or of a category have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Of d columns, each array float64, shape (d,); nan where a column is not finite.

    `mean_se` is the standard error of `mean`, `log_sd_se` that of log(sd); nan if not known.
    """

    mean: Doubles
    sd: Doubles
    mean_se: Doubles
    log_sd_se: Doubles


def clustered_se(deviation: Doubles, *groups: Ints) -> float:
    """Standard error of a mean.

    Args:
        deviation: shape (n,), values less their mean.
        groups: one or two of shape (n,), >= 0: rows of one number are alike.

    Returns: inf if there is a single group: it says nothing of others.
    """
    return _clustered_se(deviation, [(group, _distinct(group)) for group in groups])


def _distinct(group: Ints) -> int:
    return int(np.count_nonzero(np.bincount(group)))


def _clustered_se(deviation: Doubles, groups: list[tuple[Ints, int]]) -> float:
    n = len(deviation)
    alone = float(deviation @ deviation)
    total = -alone * (len(groups) - 1)
    for group, count in groups:
        sums = np.bincount(group, weights=deviation)
        if count < 2:
            return float("inf")
        total += float(sums @ sums) * count / (count - 1)
    return float(np.sqrt(max(total, alone))) / n


def moments(columns: npt.NDArray[np.float32], user: Ints, item: Ints) -> Moments:
    """Moments of columns, shape (d, n), whose rows belong to `user` and `item`, shape (n,)."""
    out = np.full((4, len(columns)), np.nan)
    groups = [(group, _distinct(group)) for group in (user, item)]
    for k, column in enumerate(columns):
        low, high = float(column.min()), float(column.max())
        if not np.isfinite(high - low):
            continue
        if low == high:
            # Not by the formula: the mean of equal numbers may be off by a bit.
            out[:, k] = low, 0.0, 0.0, 0.0
            continue
        values = column.astype(np.float64)
        mean = float(values.mean())
        deviation = values - mean
        square = deviation * deviation
        variance = float(square.mean())
        # Delta method: log(sd) = log(variance) / 2.
        log_sd_se = _clustered_se(square - variance, groups) / (2.0 * variance)
        mean_se = _clustered_se(deviation, groups)
        out[:, k] = mean, float(np.sqrt(variance)), mean_se, log_sd_se
    return Moments(*out)
