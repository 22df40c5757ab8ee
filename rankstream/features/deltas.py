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
        minute = addition[3] // _MINUTE_MS
        if addition[1]:
            _sum(groups, (ITEM, addition[1], minute), addition)
            if addition[2]:
                _sum(groups, (CATEGORY, addition[2], minute), addition)
    found: dict[int, list[Delta]] = {}
    for (entity, key, _), (time_ms, i, c, v, p, value, n, rating) in groups.items():
        found.setdefault(partition_of(key), []).append(
            (entity, key, time_ms, i, c, v, p, fit(value), n, fit(rating))
        )
    return found


def _sum(
    groups: dict[tuple[int, str, int], list[int]],
    group: tuple[int, str, int],
    addition: Addition,
) -> None:
    sums = groups.get(group)
    _, _, _, time_ms, impressions, clicks, views, purchases, value, ratings, rating = addition
    if sums is None:
        groups[group] = [time_ms, impressions, clicks, views, purchases, value, ratings, rating]
        return
    if time_ms > sums[0]:
        sums[0] = time_ms
    sums[1] += impressions
    sums[2] += clicks
    if views or purchases or ratings:
        sums[3] += views
        sums[4] += purchases
        sums[5] += value
        sums[6] += ratings
        sums[7] += rating


def fit(micros: int) -> int:
    """The nearest that 64 bits hold: only absurd values are so large."""
    return max(-_MICROS_MAX, min(_MICROS_MAX, micros))
