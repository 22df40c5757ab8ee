"""Where each feature may lie, and how far it may move between trainings: by pattern of its name.

The first pattern that fits counts. What a feature means stands in rankstream/features/snapshot.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, TypeVar

from rankstream.contracts.items import ATTRIBUTE_MAX
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Closed interval; `unknown` is a value beside it that stands for nothing known.

    `above_share_max` is the share of rows that may lie above `high`.
    """

    low: float
    high: float
    unknown: float | None = None
    above_share_max: float = 0.0

    def __str__(self) -> str:
        beside = "" if self.unknown is None else f" or {self.unknown:g}"
        allowed = f", {self.above_share_max:.0%} may be above" if self.above_share_max else ""
        return f"[{self.low:g}, {self.high:g}]{beside}{allowed}"


# Most events of one user, item, category, query or location that anybody has, as a logarithm: 7e10.
_LOG_COUNT_MAX: Final = 25.0
# A click counts when it happens, its impression up to half an hour before, so the two may fall on
# either side of a window's edge; a purchase needs no click. Such a rate passes 1 now and then.
_PASSES_ONE: Final = Range(0.0, 1.0, above_share_max=0.01)
_SHARE: Final = Range(0.0, 1.0)
_ANY: Final = Range(-ATTRIBUTE_MAX, ATTRIBUTE_MAX)
_LOG_COUNT: Final = Range(0.0, _LOG_COUNT_MAX)

RANGES: Final[tuple[tuple[str, Range], ...]] = (
    ("*_ctr_5m", _PASSES_ONE),
    ("*_ctr_1h", _PASSES_ONE),
    ("*_ctr_24h", _PASSES_ONE),
    ("*_ctr_7d", _PASSES_ONE),
    ("*_cvr", _PASSES_ONE),
    # Its counts start anew when a category is pushed out of the 32 that are kept.
    ("user_category_ctr", _PASSES_ONE),
    ("*_ctr", _SHARE),
    ("*_share", _SHARE),
    ("*_log_impressions*", _LOG_COUNT),
    ("*_log_ratings", _LOG_COUNT),
    # Stars: the prior is 3.5 of them.
    ("*_mean_rating", Range(0.0, 5.0)),
    # Baselines and what is added to them are not cut to the scale.
    ("user_item_*", Range(-10.0, 10.0)),
    # 20 is never, and more than 15 years.
    ("*_log_idle_s", Range(0.0, 20.0)),
    ("user_session_log_s", Range(0.0, 20.0)),
    ("user_session_impressions", Range(0.0, 1e6)),
    ("user_session_clicks", Range(0.0, 1e6)),
    ("user_age", Range(0.0, 130.0, unknown=-1.0)),
    ("user_gender_male", Range(0.0, 1.0, unknown=-1.0)),
    ("context_temperature_c", Range(-95.0, 65.0, unknown=-100.0)),
    ("context_rain_mm_h", Range(0.0, 3_000.0, unknown=-1.0)),
    ("context_traffic", Range(0.0, 1.0, unknown=-1.0)),
    ("context_local_events", Range(0.0, 1e6, unknown=-1.0)),
    ("item_year", Range(1000.0, 2200.0, unknown=-1.0)),
    ("item_price", Range(0.0, 1e9, unknown=-1.0)),
    # Those that were named by a setting.
    *((f"user_{name}", _ANY) for name in USER_ATTRIBUTES),
    *((f"item_{name}", _ANY) for name in ITEM_ATTRIBUTES),
    ("hour_*", Range(-1.0, 1.0)),
)

# Means may move by so many standard deviations of the reference. 0.8 is a "large" effect: Cohen,
# "Statistical Power Analysis for the Behavioral Sciences", 1988.
SHIFT_SD_MAX: Final[tuple[tuple[str, float], ...]] = (
    # The clock says when the rows are from, not what is wrong with them.
    ("hour_*", math.inf),
    # Nor does the weather; that nobody sends it any more is another check.
    ("context_*", math.inf),
    # Counts since the beginning grow with the system's age.
    ("*_log_impressions", 2.0),
    ("*_log_ratings", 2.0),
    ("*", 0.8),
)


def by_name(table: tuple[tuple[str, T], ...], name: str) -> T:
    """What the first fitting pattern says.

    Raises: LookupError: no pattern fits.

    >>> str(by_name(RANGES, "item_year"))
    '[1000, 2200] or -1'
    """
    for pattern, found in table:
        if fnmatchcase(name, pattern):
            return found
    raise LookupError(f"no pattern fits feature {name!r}: add one to pipelines/validate/ranges.py")
