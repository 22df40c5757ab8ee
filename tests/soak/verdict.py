"""Is a series of samples flat? Pure: numbers in, a verdict out.

Memory counts as flat if its slope (Theil-Sen: the median of the slopes of all pairs, which single
peaks of snapshots and of the collector do not move) would add less than GROWTH_SHARE of it, or less
than GROWTH_BYTES, over the time that was measured. A number of entries is flat if its largest value
in the last third is at most ENTRIES_SHARE over that in the first third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

GROWTH_SHARE: Final = 0.04
GROWTH_BYTES: Final = 8_000_000
ENTRIES_SHARE: Final = 0.15
# Keys that came and went, per key that is held: with fewer, nothing had to expire.
TURNOVER_MIN: Final = 3.0
_POINTS_MAX: Final = 400

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """What was seen at `at_s`, seconds after the start."""

    at_s: float
    rss_bytes: int
    users: int
    items: int
    redis_keys: int


@dataclass(frozen=True)
class Verdict:
    """Figures of the measured part, and what is wrong with them; nothing if memory is flat."""

    seconds: float
    rss_mb: float
    rss_slope_mb_per_h: float
    rss_growth_mb: float
    users: int
    items: int
    redis_keys: int
    users_made: int
    problems: tuple[str, ...]


def slope(x: Floats, y: Floats) -> float:
    """Theil-Sen slope of y over x.

    >>> slope(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 3.0, 99.0, 7.0]))
    2.0
    """
    step = max(1, len(x) // _POINTS_MAX)
    x, y = x[::step], y[::step]
    first, second = np.triu_indices(len(x), k=1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def judge(
    samples: Sequence[Sample],
    *,
    warm_up_s: float,
    users_made: int,
    growth_bytes: int = GROWTH_BYTES,
) -> Verdict:
    """The verdict on what came after the warm-up: at least nine samples.

    Args:
        growth_bytes: allowed whatever the share; more where caches are filling still.
    """
    measured = [sample for sample in samples if sample.at_s >= warm_up_s]
    assert len(measured) >= 9, len(measured)
    at = np.array([sample.at_s for sample in measured])
    rss = np.array([sample.rss_bytes for sample in measured], np.float64)
    per_s, seconds = slope(at, rss), float(at[-1] - at[0])
    growth = per_s * seconds
    allowed = max(GROWTH_SHARE * float(np.median(rss)), growth_bytes)
    problems = []
    if growth > allowed:
        problems.append(f"memory grew by {growth / 1e6:.1f} MB (limit {allowed / 1e6:.1f} MB)")
    third = len(measured) // 3
    for name in ("users", "items", "redis_keys"):
        sizes = [getattr(sample, name) for sample in measured]
        early, late = max(sizes[:third]), max(sizes[-third:])
        if late > (1 + ENTRIES_SHARE) * early:
            problems.append(f"{name} grew from {early} to {late}")
    last = measured[-1]
    if users_made < TURNOVER_MIN * last.users:
        problems.append(f"{users_made} users came, {last.users} are held: nothing had to expire")
    return Verdict(
        seconds=seconds,
        rss_mb=float(np.median(rss)) / 1e6,
        rss_slope_mb_per_h=per_s * 3_600 / 1e6,
        rss_growth_mb=growth / 1e6,
        users=last.users,
        items=last.items,
        redis_keys=last.redis_keys,
        users_made=users_made,
        problems=tuple(problems),
    )
