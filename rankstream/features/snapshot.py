"""The feature vectors of candidates as of a time: a pure function of packed rows and a clock."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.ids import id64
from rankstream.features import spec
from rankstream.features.rows import CONTEXT_ATTRIBUTES, MICROS, TOTALS, Rows, windowed

Floats = npt.NDArray[np.float64]

_HOUR_MS: Final = 3_600_000
_IMPRESSIONS, _CLICKS, _PURCHASES = (
    TOTALS.index(n) for n in ("impressions", "clicks", "purchases")
)
_RATINGS, _RATING_MICROS = TOTALS.index("ratings"), TOTALS.index("rating_micros")
_RECENT_FOR_SHARE: Final = 10
_IDLE_LOG_S_MAX: Final = 20.0
_CONTEXT_TTL_MS: Final = np.array([known.ttl_ms for known in CONTEXT_ATTRIBUTES])
_CONTEXT_UNKNOWN: Final = np.array([known.unknown for known in CONTEXT_ATTRIBUTES], np.float32)


def snapshot(
    user: Rows,
    items: Rows,
    categories: Rows,
    context: Rows,
    as_of_ms: npt.NDArray[np.int64],
    *,
    category_of: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[np.float32]:
    """Feature vectors of n candidates.

    Args:
        user: USER_ROW, shape (1,) for one request, or (n,) for training rows.
        items: ITEM_ROW, shape (n,).
        categories: CATEGORY_ROW, shape (n,): the row of each item's category; with `category_of`
            shape (m,), each category once.
        context: CONTEXT_ROW, shape (1, 2) for one request, or (n, 2): of its query and location.
        as_of_ms: shape (1,) or (n,), the time served.
        category_of: shape (n,), where in `categories` each item's is; for one user and one time.
            The vectors are the same, bit by bit, and made in less time.

    Returns: float32, shape (n, spec.WIDTH), order of spec.FEATURES; finite.
    """
    n = len(items)
    of_item: npt.NDArray[np.intp] | slice = slice(None)
    names = items["category"]
    if category_of is not None:
        assert len(user) == len(as_of_ms) == 1, (len(user), len(as_of_ms))
        of_item = category_of
        an_item = np.zeros(len(categories), np.intp)
        an_item[category_of] = np.arange(n)
        names = names[an_item]
    blocks = (
        _entity(user, as_of_ms),
        _entity(items, as_of_ms),
        _entity(categories, as_of_ms)[of_item],
        _entity(context[:, 0], as_of_ms),
        _entity(context[:, 1], as_of_ms),
        _session(user, as_of_ms),
        _known(user),
        _context(user, as_of_ms),
        _known(items),
        _affinity(user, names)[of_item],
        _clock(as_of_ms),
    )
    out = np.empty((n, spec.WIDTH), np.float32)
    end = 0
    for block in blocks:
        start, end = end, end + block.shape[1]
        out[:, start:end] = block
    assert end == spec.WIDTH, end
    return out


_ENTITY_WIDTH: Final = 14


def _rate(part: Floats, whole: Floats, prior: float, strength: float) -> Floats:
    return (part + prior * strength) / (whole + strength)


def _entity(rows: Rows, as_of_ms: npt.NDArray[np.int64]) -> Floats:
    counts = windowed(rows, as_of_ms).astype(np.float64)
    totals = rows["totals"].astype(np.float64)
    out = np.empty((len(rows), _ENTITY_WIDTH))
    out[:, 0:8:2] = np.log1p(counts[:, :, 0])
    out[:, 1:8:2] = _rate(counts[:, :, 1], counts[:, :, 0], spec.CTR_PRIOR, spec.PRIOR_STRENGTH)
    out[:, 8] = np.log1p(totals[:, _IMPRESSIONS])
    out[:, 9] = _rate(
        totals[:, _CLICKS], totals[:, _IMPRESSIONS], spec.CTR_PRIOR, spec.PRIOR_STRENGTH
    )
    out[:, 10] = _rate(
        totals[:, _PURCHASES], totals[:, _CLICKS], spec.CVR_PRIOR, spec.PRIOR_STRENGTH
    )
    out[:, 11] = np.log1p(totals[:, _RATINGS])
    out[:, 12] = _rate(
        totals[:, _RATING_MICROS] / MICROS,
        totals[:, _RATINGS],
        spec.RATING_PRIOR,
        spec.RATING_STRENGTH,
    )
    idle_s = np.maximum(as_of_ms - rows["last_ms"], 0) / 1000.0
    seen = rows["last_ms"] > 0
    out[:, 13] = np.where(seen, np.minimum(np.log1p(idle_s), _IDLE_LOG_S_MAX), _IDLE_LOG_S_MAX)
    return out


def _session(user: Rows, as_of_ms: npt.NDArray[np.int64]) -> Floats:
    """The user's last session, as far as it has been seen; it is open until its gap has passed."""
    length_s = (user["session_last_ms"] - user["session_start_ms"]) / 1000.0
    is_open = (as_of_ms - user["session_last_ms"]) <= _HOUR_MS / 2
    columns = (np.log1p(length_s), user["session_impressions"], user["session_clicks"])
    return np.stack([np.where(is_open, column, 0.0) for column in columns], axis=1)


def _known(rows: Rows) -> Floats:
    attributes = rows["attributes"].astype(np.float64)
    known: Floats = np.where(np.isnan(attributes), -1.0, attributes)
    return known


def _context(user: Rows, as_of_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the newest `context` events of the user state, as far as it still holds."""
    stated = user["context"]
    # At least 1: a time of 0 is that of nothing stated.
    oldest_ms = np.maximum(as_of_ms[:, None] - _CONTEXT_TTL_MS, 1)
    return np.where(stated["time_ms"] >= oldest_ms, stated["value"], _CONTEXT_UNKNOWN)


def _affinity(user: Rows, categories: npt.NDArray[np.bytes_]) -> Floats:
    """What the user has done with each category."""
    names, inverse = np.unique(categories, return_inverse=True)
    hashes = np.array([id64(name.decode()) if name else 0 for name in names], np.uint64)[inverse]
    tastes = user["tastes"]
    match = (tastes["category"] == hashes[:, None]) & (hashes[:, None] != 0)

    def of(field: str) -> Floats:
        total: Floats = np.where(match, tastes[field], 0).sum(axis=1).astype(np.float64)
        return total

    impressions, ratings = of("impressions"), of("ratings")
    recent = user["recent"][:, :_RECENT_FOR_SHARE]
    used = recent["time_ms"] > 0
    same = (recent["category"] == hashes[:, None]) & used & (hashes[:, None] != 0)
    return np.stack(
        [
            np.log1p(impressions),
            _rate(of("clicks"), impressions, spec.CTR_PRIOR, spec.PRIOR_STRENGTH),
            _rate(of("rating_micros") / MICROS, ratings, spec.RATING_PRIOR, spec.RATING_STRENGTH),
            same.sum(axis=1) / np.maximum(used.sum(axis=1), 1),
        ],
        axis=1,
    )


def _clock(as_of_ms: npt.NDArray[np.int64]) -> Floats:
    angle = 2 * np.pi * (as_of_ms % (24 * _HOUR_MS)) / (24 * _HOUR_MS)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
