"""Metrics, and the exact sums from which everything about them follows.

A metric is a ratio of two per-unit totals, y over x; a mean per user is the ratio with x = 1. The
sums are Python integers, so that merging shards in any order and replaying a log give the same
bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rankstream.errors import InvalidExperiment

Column = Literal["impressions", "clicks", "purchases", "value_micros"]
Int64Array = NDArray[np.int64]

MICROS = 1_000_000
_LIMB_BITS = 20
_CHUNK = 1 << 22  # products of two limbs stay below 2^40, so 2^22 of them fit an int64


@dataclass(frozen=True, slots=True)
class Metric:
    """A named ratio of per-unit totals; `denominator` None means one per user, `scale` sets the
    unit shown.
    """

    name: str
    numerator: Column
    denominator: Column | None
    scale: float = 1.0

    @classmethod
    def ratio(
        cls, name: str, numerator: Column, denominator: Column, *, scale: float = 1.0
    ) -> Self:
        """Return the metric sum(numerator) / sum(denominator) over users."""
        return cls(name, numerator, denominator, scale)

    @classmethod
    def mean(cls, name: str, numerator: Column, *, scale: float = 1.0) -> Self:
        """Return the metric sum(numerator) / number of exposed users."""
        return cls(name, numerator, None, scale)


@dataclass(frozen=True, slots=True)
class Moments:
    """Sufficient statistics of one arm: exact sums over units of x, y and their products. Merges
    with `+`.
    """

    n: int = 0
    sx: int = 0
    sy: int = 0
    sxx: int = 0
    sxy: int = 0
    syy: int = 0

    @classmethod
    def of(cls, y: Int64Array, x: Int64Array | None = None) -> Self:
        """Return the moments of per-unit totals, int64 of shape (n,); x None stands for ones."""
        n = len(y)
        sy, syy = exact_sum(y), exact_dot(y, y)
        if x is None:
            return cls(n, n, sy, n, sy, syy)
        return cls(n, exact_sum(x), sy, exact_dot(x, x), exact_dot(x, y), syy)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.n + other.n,
            self.sx + other.sx,
            self.sy + other.sy,
            self.sxx + other.sxx,
            self.sxy + other.sxy,
            self.syy + other.syy,
        )


def exact_sum(values: Int64Array) -> int:
    """Return the sum of int64 values without overflow."""
    return exact_dot(values, np.ones(1, dtype=np.int64).repeat(len(values)))


def exact_dot(a: Int64Array, b: Int64Array) -> int:
    """Return sum(a * b) of two int64 arrays of shape (n,) without overflow.

    Money in micros squares to more than an int64 holds, so wide values are split into limbs of 20
    bits.
    """
    if len(a) == 0:
        return 0
    if _magnitude(a) * _magnitude(b) * len(a) < 1 << 63:
        return int(a @ b)
    total = 0
    for start in range(0, len(a), _CHUNK):
        left = _limbs(a[start : start + _CHUNK])
        right = _limbs(b[start : start + _CHUNK])
        for i, u in enumerate(left):
            for j, v in enumerate(right):
                total += int(u @ v) << (_LIMB_BITS * (i + j))
    return total


def _magnitude(values: Int64Array) -> int:
    return max(int(values.max()), -int(values.min()))


def _limbs(values: Int64Array) -> list[Int64Array]:
    """Split into low limbs in [0, 2^20) and a signed top limb: value = sum of limb_i * 2^(20 i)."""
    limbs = []
    while _magnitude(values) >= 1 << _LIMB_BITS:
        limbs.append(values & ((1 << _LIMB_BITS) - 1))
        values = values >> _LIMB_BITS
    return [*limbs, values]


CATALOGUE: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric.ratio("ctr", "clicks", "impressions"),
        # Purchases per click, as in P(conversion | click); per impression it is ctcvr (Ma et al.,
        # ESMM, SIGIR 2018).
        Metric.ratio("cvr", "purchases", "clicks"),
        Metric.ratio("ctcvr", "purchases", "impressions"),
        # Revenue per mille: value per thousand impressions, in units of the currency.
        Metric.ratio("rpm", "value_micros", "impressions", scale=1_000 / MICROS),
        Metric.mean("impressions_per_user", "impressions"),
        Metric.mean("clicks_per_user", "clicks"),
        Metric.mean("purchases_per_user", "purchases"),
        Metric.mean("value_per_user", "value_micros", scale=1 / MICROS),
    )
}
"""The metrics of the first scorecard, by name."""


def metric(name: str) -> Metric:
    """Return the metric called `name`. Raises: InvalidExperiment naming the known ones."""
    found = CATALOGUE.get(name)
    if found is None:
        raise InvalidExperiment(
            f"metric {name} is unknown. Nothing was changed. Use one of {', '.join(CATALOGUE)}."
        )
    return found
