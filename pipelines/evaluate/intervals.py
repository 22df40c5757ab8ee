"""Intervals and paired tests of metrics, by a bootstrap that resamples users.

Impressions of one user are alike, so rows are not what varies from test set to test set: users
are. A replicate draws as many users as there are, with replacement (multinomial counts), and takes
each with all its rows as often as it was drawn. Multinomial and not Poisson counts: Poisson(1) is
for streams whose length is unknown (Chamandy et al. 2012); here the users are known, and with few
of them a Poisson replicate may be of twice the size, or empty.

Sources: Field and Welsh, "Bootstrapping clustered data", JRSS B 2007; Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, sections 3.8 and 5.2; Chamandy et al., "Estimating
uncertainty for massive data streams", Google 2012.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from pipelines.evaluate.impressions import Doubles, refusal
from pipelines.evaluate.weighted import GapNorm, Statistic

Key = TypeVar("Key", bound=Hashable)

LEVEL: Final = 0.95
REPLICATES: Final = 1_000
REPLICATES_MIN: Final = 100
BLOCK: Final = 64  # replicates in memory at a time: BLOCK * users doubles
UNDEFINED_SHARE_MAX: Final = 0.05


@dataclass(frozen=True)
class Draws:
    """Which users each replicate draws: equal draws are the same users, so they pair."""

    users: int
    replicates: int = REPLICATES
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises: InvalidInput: no user, or too few replicates for a tail."""
        if self.users < 1 or self.replicates < REPLICATES_MIN:
            raise refusal(
                f"{self.replicates} replicates of {self.users} users (at least {REPLICATES_MIN}"
                " of 1)",
                "Draw more.",
            )

    def blocks(self, size: int = BLOCK) -> Iterator[Doubles]:
        """Weights of users, shape (at most size, users); the same for every size."""
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.replicates, size):
            block = np.empty((min(size, self.replicates - start), self.users))
            for row in block:
                row[:] = np.bincount(rng.integers(0, self.users, self.users), minlength=self.users)
            yield block


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric's value and its replicates: float64, shape (draws.replicates,), nan: undefined.

    `noise`, of the same shape, is that of a `GapNorm`; None for other metrics.
    """

    value: float
    replicates: Doubles
    draws: Draws
    noise: Doubles | None = None


@dataclass(frozen=True)
class Interval:
    """A metric with its interval; `low` and `high` are nan where the data do not carry one."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Difference:
    """Candidate minus incumbent on the same rows; `p_value` of no difference, two-sided."""

    value: float
    low: float
    high: float
    level: float
    p_value: float


def resample(statistics: Mapping[Key, Statistic], draws: Draws) -> dict[Key, Resampled]:
    """Every statistic on the same resamples of users."""
    once = np.ones((1, draws.users))
    values: dict[Key, list[Doubles]] = {key: [] for key in statistics}
    noises: dict[Key, list[Doubles]] = {key: [] for key in statistics}
    for weights in draws.blocks():
        for key, statistic in statistics.items():
            values[key].append(statistic(weights))
            if isinstance(statistic, GapNorm):
                noises[key].append(statistic.noise(weights))
    return {
        key: Resampled(
            float(statistic(once)[0]),
            np.concatenate(values[key]),
            draws,
            np.concatenate(noises[key]) if noises[key] else None,
        )
        for key, statistic in statistics.items()
    }


def interval(resampled: Resampled, *, level: float = LEVEL) -> Interval:
    """Interval of a metric: quantiles of its replicates; of a calibration error another.

    A calibration error is never negative, so chance adds to it, and resampling adds once more: its
    quantiles may lie wholly above the truth. Its lower end is the value less a quantile of the
    noise, which bounds the error whatever the truth; reflected replicates (basic bootstrap) would
    miss a truth of 0 too often. Its upper end is reflected, and not below the value.

    Returns: nan ends if more than UNDEFINED_SHARE_MAX of the replicates are undefined.
    """
    low, high = _quantiles(resampled.replicates, level)
    value = resampled.value
    if resampled.noise is not None:
        noise = float(np.quantile(resampled.noise, (1 + level) / 2))
        low, high = max(0.0, value - noise), max(value, 2 * value - low)
    return Interval(value, low, high, level)


def difference(
    candidate: Resampled,
    incumbent: Resampled,
    *,
    level: float = LEVEL,
) -> Difference:
    """Paired difference: both models on the same resample of users.

    The p-value is twice the smaller share of replicates at or beyond 0, each share counted with
    one replicate more, so it is at least 2 / (replicates + 1) and never 0 (Davison and Hinkley,
    section 4.4); it is below 1 - level where the interval leaves 0 out.

    Raises: InvalidInput: the two were not resampled by the same draws, or are calibration errors:
        chance adds to each by an amount of its own, which a difference does not cancel.
    """
    if candidate.noise is not None or incumbent.noise is not None:
        raise refusal("a difference of calibration errors", "Compare log loss.")
    if candidate.draws != incumbent.draws:
        raise refusal(
            f"a pair resampled by {candidate.draws} and {incumbent.draws} (the same draws)",
            "Resample both in one call.",
        )
    gap = candidate.replicates - incumbent.replicates
    value = candidate.value - incumbent.value
    low, high = _quantiles(gap, level)
    if math.isnan(low):
        return Difference(value, low, high, level, math.nan)
    known = gap[~np.isnan(gap)]
    beyond = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return Difference(value, low, high, level, min(1.0, 2 * (beyond + 1) / (len(known) + 1)))


def _quantiles(replicates: Doubles, level: float) -> tuple[float, float]:
    known = replicates[~np.isnan(replicates)]
    if len(known) < (1 - UNDEFINED_SHARE_MAX) * len(replicates):
        return math.nan, math.nan
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)
