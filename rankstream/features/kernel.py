"""The arithmetic of feature vectors, compiled: one pass over the candidates, no array in between.

Every function writes columns of `out`, float32 [n, width], from column `at` on. A row of state that
is the only one of its kind (a request has one user) serves all n. Numbers are float64 until they
are written.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from rankstream.contracts.columns import Kind
from rankstream.features import spec
from rankstream.features.compiled import compiled, read_only, types, written
from rankstream.features.rows import CONTEXT_ATTRIBUTES, MICROS, TOTALS, WINDOWS

# Of an entity with counters: two per window, six of all time.
ALL_TIME_COLUMNS: Final = 6
COUNTER_COLUMNS: Final = 2 * len(WINDOWS) + ALL_TIME_COLUMNS
AFFINITY_COLUMNS: Final = 4
SESSION_COLUMNS: Final = 3
RATED_COLUMNS: Final = len(spec.LAST_RATINGS)
CLOCK_COLUMNS: Final = 2

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_SESSION_GAP_MS: Final = _HOUR_MS // 2
_RECENT_FOR_SHARE: Final = 10
_IDLE_LOG_S_MAX: Final = 20.0
_IMPRESSIONS, _CLICKS, _PURCHASES, _RATINGS, _RATING_MICROS = (
    TOTALS.index(name)
    for name in ("impressions", "clicks", "purchases", "ratings", "rating_micros")
)
# The compiler takes these as constants.
_WINDOW_MS: Final = tuple(window.bucket_ms for window in WINDOWS)
_WINDOW_BUCKETS: Final = tuple(window.buckets for window in WINDOWS)
_TTL_MS: Final = tuple(known.ttl_ms for known in CONTEXT_ATTRIBUTES)
_UNKNOWN: Final = tuple(known.unknown for known in CONTEXT_ATTRIBUTES)
_CTR, _CVR, _STRENGTH = spec.CTR_PRIOR, spec.CVR_PRIOR, spec.PRIOR_STRENGTH
_RATING, _RATING_STRENGTH = spec.RATING_PRIOR, spec.RATING_STRENGTH
_LAST_RATINGS: Final = spec.LAST_RATINGS
_RATE: Final = int(Kind.RATE)


_OUT: Final = written(types.float32, 2)
_AT: Final = types.int64
_TIMES: Final = read_only(types.int64, 1)
_PLACES: Final = read_only(types.intp, 1)
_HASHES: Final = read_only(types.uint64, 1)
_INTS: Final = read_only(types.int32, 1)
_COUNTED: Final = types.Tuple(
    (
        read_only(types.int64, 2),
        read_only(types.int32, 3),
        read_only(types.int64, 2),
        read_only(types.int64, 1),
    )
)
_HASHED: Final = read_only(types.uint64, 2)
_COUNTS: Final = read_only(types.int32, 2)
_WIDE: Final = read_only(types.int64, 2)
_VALUES: Final = read_only(types.float32, 2)
_KINDS: Final = read_only(types.uint8, 2)


@numba.njit(nogil=True, cache=True)
def _rate(part: float, whole: float, prior: float, strength: float) -> float:
    return (part + prior * strength) / (whole + strength)


@numba.njit(nogil=True, cache=True)
def _all_time(out: Any, at: Any, i: Any, rows: Any, r: Any, now_ms: Any) -> None:
    """The counters of row r that have no window, into row i."""
    _, _, totals, last_ms = rows
    seen, clicked = float(totals[r, _IMPRESSIONS]), float(totals[r, _CLICKS])
    rated = float(totals[r, _RATINGS])
    out[i, at] = np.log1p(seen)
    out[i, at + 1] = _rate(clicked, seen, _CTR, _STRENGTH)
    out[i, at + 2] = _rate(float(totals[r, _PURCHASES]), clicked, _CVR, _STRENGTH)
    out[i, at + 3] = np.log1p(rated)
    stars = float(totals[r, _RATING_MICROS]) / MICROS
    out[i, at + 4] = _rate(stars, rated, _RATING, _RATING_STRENGTH)
    idle_log_s = _IDLE_LOG_S_MAX
    if last_ms[r] > 0:
        idle_log_s = min(np.log1p(max(now_ms - last_ms[r], 0) / 1000.0), _IDLE_LOG_S_MAX)
    out[i, at + 5] = idle_log_s


@numba.njit(nogil=True, cache=True)
def _counters(out: Any, at: Any, i: Any, rows: Any, r: Any, now_ms: Any) -> None:
    """The counters of row r as of a time, into row i."""
    head, counts, _, _ = rows
    slot = 0
    for w in range(len(_WINDOW_MS)):
        newest, buckets = now_ms // _WINDOW_MS[w], _WINDOW_BUCKETS[w]
        held_last = head[r, w]
        place = held_last % buckets
        impressions, clicks = 0, 0
        for s in range(buckets):
            # The bucket in slot s: slots hold those up to the newest that was written.
            age = place - s if s <= place else place - s + buckets
            held = held_last - age
            if newest - buckets < held <= newest and held >= 0:
                impressions += counts[r, slot + s, 0]
                clicks += counts[r, slot + s, 1]
        slot += buckets
        out[i, at + 2 * w] = np.log1p(float(impressions))
        out[i, at + 2 * w + 1] = _rate(float(clicks), float(impressions), _CTR, _STRENGTH)
    _all_time(out, at + 2 * len(_WINDOW_MS), i, rows, r, now_ms)


@compiled(_OUT, _AT, _COUNTED, _PLACES, _TIMES)
def counters(out: Any, at: Any, rows: Any, of: Any, as_of_ms: Any) -> None:
    """COUNTER_COLUMNS of each candidate's entity.

    Args:
        rows: head, counts, totals and last_ms of the entities.
        of: shape (n,), the row of each candidate; shape (0,): row i is candidate i's, or the one
            row everybody's.
        as_of_ms: shape (n,) or (1,).
    """
    single = len(rows[0]) == 1 and len(as_of_ms) == 1
    for i in range(len(out)):
        if single and i > 0:
            out[i, at : at + COUNTER_COLUMNS] = out[0, at : at + COUNTER_COLUMNS]
            continue
        row = of[i] if len(of) else (0 if len(rows[0]) == 1 else i)
        _counters(out, at, i, rows, row, as_of_ms[i if len(as_of_ms) > 1 else 0])


@compiled(_OUT, _AT, _COUNTED, _PLACES, _TIMES)
def all_time(out: Any, at: Any, rows: Any, of: Any, as_of_ms: Any) -> None:
    """ALL_TIME_COLUMNS of each candidate's entity: the last of those that `counters` writes.

    Args:
        rows: as in `counters`; of: shape (n,), the row of each candidate; as_of_ms: shape (1,).
    """
    for i in range(len(out)):
        _all_time(out, at, i, rows, of[i], as_of_ms[0])


@numba.njit(nogil=True, cache=True)
def _affinity(out: Any, at: Any, i: Any, tastes: Any, recent: Any, u: Any, category: Any) -> None:
    """What user u has done with a category, given by its hash, into row i."""
    names, seen, clicked, rated, micros = tastes
    impressions, clicks, ratings, rating_micros = 0, 0, 0, 0
    if category != 0:
        for k in range(names.shape[1]):
            if names[u, k] == category:
                impressions += seen[u, k]
                clicks += clicked[u, k]
                ratings += rated[u, k]
                rating_micros += micros[u, k]
    out[i, at] = np.log1p(float(impressions))
    out[i, at + 1] = _rate(float(clicks), float(impressions), _CTR, _STRENGTH)
    stars = float(rating_micros) / MICROS
    out[i, at + 2] = _rate(stars, float(ratings), _RATING, _RATING_STRENGTH)
    categories, time_ms = recent
    used, same = 0, 0
    for k in range(_RECENT_FOR_SHARE):
        if time_ms[u, k] > 0:
            used += 1
            same += category != 0 and categories[u, k] == category
    out[i, at + 3] = same / max(used, 1)


@compiled(
    _OUT, _AT, _AT, _COUNTED, _HASHES, _PLACES,
    types.Tuple((_HASHED, _COUNTS, _COUNTS, _COUNTS, _WIDE)), types.Tuple((_HASHED, _WIDE)), _TIMES,
)  # fmt: skip
def categories(
    out: Any, at: Any, affinity_at: Any, rows: Any, category_hash: Any, of: Any,
    tastes: Any, recent: Any, as_of_ms: Any,
) -> None:  # fmt: skip
    """COUNTER_COLUMNS of each candidate's category, and AFFINITY_COLUMNS of the user to it.

    With `of`, shape (n,), there is one user and one time, and each category is worked out once.
    `category_hash`: id64 of the name of each row of `rows`, 0 for none.
    """
    first = np.full(len(category_hash), -1, np.int64)
    for i in range(len(out)):
        c = of[i] if len(of) else i
        if first[c] >= 0:
            k = first[c]
            out[i, at : at + COUNTER_COLUMNS] = out[k, at : at + COUNTER_COLUMNS]
            out[i, affinity_at : affinity_at + AFFINITY_COLUMNS] = out[
                k, affinity_at : affinity_at + AFFINITY_COLUMNS
            ]
            continue
        first[c] = i
        _counters(out, at, i, rows, c, as_of_ms[i if len(as_of_ms) > 1 else 0])
        user = i if len(tastes[0]) > 1 else 0
        _affinity(out, affinity_at, i, tastes, recent, user, category_hash[c])


@compiled(_OUT, _AT, types.Tuple((_TIMES, _TIMES, _INTS, _INTS)), _TIMES)
def session(out: Any, at: Any, rows: Any, as_of_ms: Any) -> None:
    """The user's last session, as far as it has been seen; it is open until its gap has passed.

    `rows`: session_start_ms, session_last_ms, session_impressions and session_clicks.
    """
    start_ms, last_ms, impressions, clicks = rows
    for i in range(len(out)):
        u = i if len(last_ms) > 1 else 0
        now_ms = as_of_ms[i if len(as_of_ms) > 1 else 0]
        is_open = now_ms - last_ms[u] <= _SESSION_GAP_MS
        out[i, at] = np.log1p((last_ms[u] - start_ms[u]) / 1000.0) if is_open else 0.0
        out[i, at + 1] = impressions[u] if is_open else 0
        out[i, at + 2] = clicks[u] if is_open else 0


@compiled(_OUT, _AT, _KINDS, _VALUES)
def ratings(out: Any, at: Any, kind: Any, value: Any) -> None:
    """Smoothed means of the user's last ratings, for each number in spec.LAST_RATINGS.

    Args:
        kind, value: shape (n, RECENT) or (1, RECENT), of recent actions, newest first.
    """
    for i in range(len(out)):
        if len(kind) == 1 and i > 0:
            out[i, at : at + RATED_COLUMNS] = out[0, at : at + RATED_COLUMNS]
            continue
        stars, rated = 0.0, 0
        out[i, at : at + RATED_COLUMNS] = _RATING
        for k in range(kind.shape[1]):
            if kind[i, k] == _RATE:
                rated += 1
                stars += value[i, k]
                for place in range(len(_LAST_RATINGS)):
                    if rated <= _LAST_RATINGS[place]:
                        out[i, at + place] = _rate(stars, rated, _RATING, _RATING_STRENGTH)


@compiled(_OUT, _AT, _VALUES, _PLACES)
def attributes(out: Any, at: Any, values: Any, of: Any) -> None:
    """The attributes of each candidate's entity, -1 where unknown; `of` as in `counters`."""
    for i in range(len(out)):
        row = of[i] if len(of) else (0 if len(values) == 1 else i)
        for k in range(values.shape[1]):
            value = values[row, k]
            out[i, at + k] = -1.0 if np.isnan(value) else value


@compiled(_OUT, _AT, _WIDE, _VALUES, _TIMES)
def context(out: Any, at: Any, time_ms: Any, value: Any, as_of_ms: Any) -> None:
    """What the newest `context` events of the user state, as far as it still holds.

    Args:
        time_ms, value: shape (n, k) or (1, k), of CONTEXT_ATTRIBUTES.
    """
    for i in range(len(out)):
        u = i if len(value) > 1 else 0
        now_ms = as_of_ms[i if len(as_of_ms) > 1 else 0]
        for k in range(len(_TTL_MS)):
            # At least 1: a time of 0 is that of nothing stated.
            holds = time_ms[u, k] >= max(now_ms - _TTL_MS[k], 1)
            out[i, at + k] = value[u, k] if holds else _UNKNOWN[k]


@compiled(_OUT, _AT, _TIMES)
def clock(out: Any, at: Any, as_of_ms: Any) -> None:
    """The time of day on a circle."""
    for i in range(len(out)):
        angle = 2 * np.pi * (as_of_ms[i if len(as_of_ms) > 1 else 0] % _DAY_MS) / _DAY_MS
        out[i, at], out[i, at + 1] = np.sin(angle), np.cos(angle)
