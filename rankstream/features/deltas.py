"""What one record of events adds to the counters of users, items and categories."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

ITEM: Final = 1
CATEGORY: Final = 2

# user, item, category, then what counters.Amounts holds: event time, impressions, clicks, views,
# purchases, value_micros, ratings, rating_micros. Item and category may be "".
Addition: TypeAlias = tuple[str, str, str, int, int, int, int, int, int, int, int]

# entity (ITEM or CATEGORY), key, then what counters.Amounts holds
Delta: TypeAlias = tuple[int, str, int, int, int, int, int, int, int, int]

_MINUTE_MS: Final = 60_000
_MICROS_MAX: Final = (1 << 63) - 1


def deltas_by_partition(
    additions: Iterable[Addition], partition_of: Callable[[str], int]
) -> dict[int, list[Delta]]:
    """Additions summed by (entity, key, minute), by the partition that owns the key.

    Every window's bucket is whole minutes, so the sums lose nothing; the event
    time of a delta is the newest of its group.
    """
    groups: dict[tuple[int, str, int], list[int]] = {}
    for addition in additions:
        item, category, amounts = addition[1], addition[2], addition[3:]
        if not item:
            continue
        time_ms = amounts[0]
        minute = time_ms // _MINUTE_MS
        for group in ((ITEM, item, minute), (CATEGORY, category, minute)):
            sums = groups.get(group)
            if sums is None:
                if group[1]:
                    groups[group] = list(amounts)
                continue
            if time_ms > sums[0]:
                sums[0] = time_ms
            sums[1] += amounts[1]
            sums[2] += amounts[2]
            if amounts[3] or amounts[4] or amounts[6]:  # views, purchases, ratings
                for place in range(3, 8):
                    sums[place] += amounts[place]
    found: dict[int, list[Delta]] = {}
    for (entity, key, _), (time_ms, i, c, v, p, value, n, rating) in groups.items():
        found.setdefault(partition_of(key), []).append(
            (entity, key, time_ms, i, c, v, p, value, n, rating)
            if -_MICROS_MAX <= value <= _MICROS_MAX and -_MICROS_MAX <= rating <= _MICROS_MAX
            else (entity, key, time_ms, i, c, v, p, fit(value), n, fit(rating))
        )
    return found


def fit(micros: int) -> int:
    """The nearest that 64 bits hold: only absurd values are so large."""
    return max(-_MICROS_MAX, min(_MICROS_MAX, micros))
