"""The arithmetic of folding, compiled: additions go to counters and tastes one after the other.

Integers wrap as numpy's do. Tables are those of CounterTable and TasteTable, changed in place.
"""

from __future__ import annotations

from typing import Any, Final

import numba

from rankstream.features.compiled import compiled, read_only, types, written
from rankstream.features.rows import CATEGORIES, CATEGORY_TASTE, COUNTERS, TOTALS, WINDOWS

_WINDOW_MS: Final = tuple(window.bucket_ms for window in WINDOWS)
_WINDOW_BUCKETS: Final = tuple(window.buckets for window in WINDOWS)
_COUNTERS: Final = len(COUNTERS)
_TOTALS: Final = len(TOTALS)
_VALUE: Final = TOTALS.index("value_micros")
# What a taste holds beside its category, by column: last_ms and the four amounts.
HELD: Final = 5

_LONGS: Final = written(types.int64, 1)
_TIMES: Final = read_only(types.int64, 1)
_AMOUNTS: Final = read_only(types.int64, 2)
_TASTES: Final = written(CATEGORY_TASTE, 2)
# See Crowded in tastes.py.
_CROWDED: Final = types.Tuple(
    (
        written(types.int32, 1), _LONGS, written(types.uint64, 2), written(types.int64, 3),
        written(types.uint8, 1), _LONGS, _LONGS,
    )
)  # fmt: skip


@compiled(
    written(types.int64, 2), written(types.int32, 3), written(types.int64, 2),
    written(types.int64, 2), _LONGS, _TIMES, _TIMES, _AMOUNTS,
)  # fmt: skip
def count(
    head: Any, counts: Any, value_micros: Any, totals: Any, last_ms: Any,
    row: Any, time_ms: Any, amounts: Any,
) -> None:  # fmt: skip
    """Add amounts, shape (n, 7), order of TOTALS, to rows of a CounterTable.

    A ring moves on to the bucket of its newest event; what is older than the ring adds to the
    totals only.
    """
    for i in range(len(row)):
        r, now_ms = row[i], time_ms[i]
        last_ms[r] = max(last_ms[r], now_ms)
        for k in range(_TOTALS):
            totals[r, k] += amounts[i, k]
        first = 0
        for w in range(len(_WINDOW_MS)):
            bucket, buckets = now_ms // _WINDOW_MS[w], _WINDOW_BUCKETS[w]
            newest = head[r, w]
            if bucket > newest:
                # These slots hold buckets that leave the ring.
                for passed in range(max(newest, bucket - buckets) + 1, bucket + 1):
                    slot = first + passed % buckets
                    counts[r, slot] = 0
                    value_micros[r, slot] = 0
                head[r, w] = bucket
            if bucket > newest - buckets:
                slot = first + bucket % buckets
                for k in range(_COUNTERS):
                    counts[r, slot, k] += amounts[i, k]
                value_micros[r, slot] += amounts[i, _VALUE]
            first += buckets


@numba.njit(nogil=True, cache=True)
def _slot(slots: Any, category: Any) -> int:
    """Place of a category in a row's slots, made if it is new; -1 if there is no room."""
    at = 0
    while at < CATEGORIES and slots[at].category != 0 and slots[at].category < category:
        at += 1
    if at == CATEGORIES:
        return -1
    if slots[at].category == category:
        return at
    if slots[CATEGORIES - 1].category != 0:
        return -1
    for k in range(CATEGORIES - 1, at, -1):
        slots[k] = slots[k - 1]
    slot = slots[at]
    slot.category = category
    slot.last_ms = slot.impressions = slot.clicks = slot.ratings = slot.rating_micros = 0
    return at


@numba.njit(nogil=True, cache=True)
def _hold(names: Any, held: Any, slots: Any) -> int:
    """Copy a full row's tastes to a crowded place; how many there are."""
    for k in range(CATEGORIES):
        slot = slots[k]
        names[k], held[k, 0] = slot.category, slot.last_ms
        held[k, 1], held[k, 2] = slot.impressions, slot.clicks
        held[k, 3], held[k, 4] = slot.ratings, slot.rating_micros
    return CATEGORIES


@numba.njit(nogil=True, cache=True)
def _add_held(names: Any, held: Any, n: Any, category: Any, time_ms: Any, amounts: Any) -> Any:
    """Add to the n tastes of a crowded row; how many there are then."""
    at = 0
    while at < n and names[at] != category:
        at += 1
    if at == n:
        names[at], held[at], n = category, 0, n + 1
    held[at, 0] = max(held[at, 0], time_ms)
    for k in range(1, HELD):
        held[at, k] += amounts[k - 1]
    if n < len(names):
        return n
    oldest = 0
    for k in range(n):
        is_as_old = held[k, 0] == held[oldest, 0]
        if held[k, 0] < held[oldest, 0] or (is_as_old and names[k] < names[oldest]):
            oldest = k
    n -= 1
    names[oldest], held[oldest] = names[n], held[n]
    return n


@compiled(
    _TASTES, _CROWDED, _TIMES, read_only(types.uint64, 1), _TIMES, _AMOUNTS, types.int64,
    returns=types.int64,
)  # fmt: skip
def add_tastes(
    slots: Any, crowded: Any, row: Any, category: Any, time_ms: Any, amounts: Any, start: Any
) -> Any:
    """Add to tastes, from addition `start` on; where it stopped.

    Short of the end: a row has too many categories, and no place for crowded ones is free.
    """
    place_of, sizes, names, held, stale, free, free_n = crowded
    for i in range(start, len(row)):
        r, place = row[i], place_of[row[i]]
        if place < 0:
            at = _slot(slots[r], category[i])
            if at >= 0:
                slot = slots[r, at]
                slot.last_ms = max(slot.last_ms, time_ms[i])
                slot.impressions += amounts[i, 0]
                slot.clicks += amounts[i, 1]
                slot.ratings += amounts[i, 2]
                slot.rating_micros += amounts[i, 3]
                continue
            if free_n[0] == 0:
                return i
            free_n[0] -= 1
            place = place_of[r] = free[free_n[0]]
            sizes[place] = _hold(names[place], held[place], slots[r])
        size = sizes[place]
        sizes[place] = _add_held(
            names[place], held[place], size, category[i], time_ms[i], amounts[i]
        )
        stale[place] = 1
    return len(row)


@compiled(_TASTES, _CROWDED, _TIMES)
def refresh(slots: Any, crowded: Any, row: Any) -> None:
    """Write the slots of those rows that are crowded and have changed: the 32 used last."""
    place_of, sizes, names, held, stale, _, _ = crowded
    for i in range(len(row)):
        r, place = row[i], place_of[row[i]]
        if place < 0 or not stale[place]:
            continue
        stale[place] = 0
        for k in range(CATEGORIES):
            slots[r, k].category = 0
        own, times, n = names[place], held[place, :, 0], sizes[place]
        for k in range(n):
            newer = 0
            for j in range(n):
                newer += times[j] > times[k] or (times[j] == times[k] and own[j] > own[k])
            if newer < CATEGORIES:
                slot = slots[r, _slot(slots[r], own[k])]
                slot.last_ms = times[k]
                slot.impressions, slot.clicks = held[place, k, 1], held[place, k, 2]
                slot.ratings, slot.rating_micros = held[place, k, 3], held[place, k, 4]
