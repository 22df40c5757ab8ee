"""How old is what we serve? Quantiles of delays from a fixed log-spaced histogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

GROWTH = 1.05
DELAY_MS_MAX = 7 * 86_400_000
# Bucket 0 ends at 1 ms, the last regular one at or past DELAY_MS_MAX.
EDGES_MS = GROWTH ** np.arange(math.ceil(math.log(DELAY_MS_MAX) / math.log(GROWTH)) + 1)
RELATIVE_ERROR = math.sqrt(GROWTH) - 1


@dataclass(frozen=True, eq=False)
class Delays:
    """Counts of delays in ms, int64, shape (len(EDGES_MS) + 1,); 3.4 kB whatever n is.

    Bucket 0 holds all up to 1 ms, negative ones (two clocks that disagree) included; the last one
    holds everything over a week.
    """

    counts: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        return cls(np.zeros(len(EDGES_MS) + 1, dtype=np.int64))

    @classmethod
    def of(cls, delay_ms: npt.ArrayLike) -> Self:
        """Summary of delays in ms, shape (n,)."""
        bins = np.searchsorted(EDGES_MS, np.asarray(delay_ms, dtype=np.float64), side="left")
        return cls(np.bincount(bins, minlength=len(EDGES_MS) + 1))

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def merge(self, other: Self) -> Self:
        return type(self)(self.counts + other.counts)

    def quantile_ms(self, q: float) -> float:
        """The q-quantile within RELATIVE_ERROR (2.5 %) for delays over 1 ms; nan without delays.

        A delay over a week reads as a week.
        """
        assert 0 <= q <= 1, "a quantile is in [0, 1]"
        if self.n == 0:
            return math.nan
        rank = max(1, math.ceil(q * self.n))
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        if bucket == 0:
            return 1.0
        if bucket == len(EDGES_MS):
            return float(EDGES_MS[-1])
        return float(EDGES_MS[bucket] / math.sqrt(GROWTH))

    def share_within(self, age_ms: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Share of delays of at most `age_ms`, by the shape of `age_ms`; 1 without delays.

        Of click delays, this is the weight of an impression of that age in O/E.
        """
        if self.n == 0:
            return np.ones_like(np.asarray(age_ms, dtype=np.float64))
        cumulative = np.cumsum(self.counts) / self.n
        # Linear inside a bucket; the open last bucket counts only as a whole.
        return np.interp(np.asarray(age_ms, dtype=np.float64), EDGES_MS, cumulative[:-1])
