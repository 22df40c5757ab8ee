"""The feature vectors of candidates as of a time: a pure function of packed rows and a clock."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.ids import id64
from rankstream.features import kernel, spec
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES
from rankstream.features.rows import (
    CONTEXT_ATTRIBUTES,
    WINDOWS,
    Rows,
)

Places = npt.NDArray[np.intp]


def _columns(first: str, columns: int) -> range:
    place = spec.NAMES.index(first)
    return range(place, place + columns)


_AS_THEY_COME: Final = np.empty(0, np.intp)
_UNTOLD: Final = tuple(feature.default for feature in spec.FEATURES[-len(spec.TOLD_BY_TABLE) :])
_TASTES: Final = ("category", "impressions", "clicks", "ratings", "rating_micros")
# Of spec.FEATURES: what `partial_vectors` makes, in its order.
PARTIAL: Final = (
    *_columns("item_log_impressions", kernel.ALL_TIME_COLUMNS),
    *_columns(f"category_log_impressions_{WINDOWS[0].name}", kernel.COUNTER_COLUMNS),
    *_columns(f"item_{ITEM_ATTRIBUTES[0]}", len(ITEM_ATTRIBUTES)),
    *_columns("user_category_log_impressions", kernel.AFFINITY_COLUMNS),
)
PARTIAL_NAMES: Final = tuple(spec.NAMES[column] for column in PARTIAL)
_SESSION: Final = ("session_start_ms", "session_last_ms", "session_impressions", "session_clicks")


def snapshot(
    user: Rows,
    items: Rows,
    categories: Rows,
    context: Rows,
    as_of_ms: npt.NDArray[np.int64],
    *,
    item_of: Places | None = None,
    category_of: Places | None = None,
    category_hash: npt.NDArray[np.uint64] | None = None,
) -> npt.NDArray[np.float32]:
    """Feature vectors of n candidates.

    Args:
        user: USER_ROW, shape (1,) for one request, or (n,) for training rows.
        items: ITEM_ROW, shape (n,); with `item_of` any number of rows.
        categories: CATEGORY_ROW, shape (n,): the row of each item's category; with `category_of`
            any number of rows.
        context: CONTEXT_ROW, shape (1, 2) for one request, or (n, 2): of its query and location.
        as_of_ms: shape (1,) or (n,), the time served.
        item_of, category_of: shape (n,), where in `items` and in `categories` each candidate's is;
            for one user and one time. The vectors are the same, bit by bit, made in less time.
        category_hash: id64 of the name of each row of `categories`, 0 for none; None: the names
            that the items have, which `category_of` does not allow.

    Returns: float32, shape (n, spec.WIDTH), order of spec.FEATURES; finite. The columns of a
        rating table are at their defaults: see `rating_table`.
    """
    n = len(items) if item_of is None else len(item_of)
    if category_hash is None:
        assert category_of is None
        category_hash = hashes_of(items["category"])
    assert category_of is None or len(user) == len(as_of_ms) == 1, (len(user), len(as_of_ms))
    of_item = _AS_THEY_COME if item_of is None else item_of
    of_category = _AS_THEY_COME if category_of is None else category_of
    out = np.empty((n, spec.WIDTH), np.float32)
    tastes, recent = user["tastes"], user["recent"]
    wide, at = kernel.COUNTER_COLUMNS, 0
    kernel.counters(out, at, _counted(user), _AS_THEY_COME, as_of_ms)
    kernel.counters(out, at := at + wide, _counted(items), of_item, as_of_ms)
    of_categories = at = at + wide
    kernel.counters(out, at := at + wide, _counted(context[:, 0]), _AS_THEY_COME, as_of_ms)
    kernel.counters(out, at := at + wide, _counted(context[:, 1]), _AS_THEY_COME, as_of_ms)
    kernel.session(out, at := at + wide, tuple(user[name] for name in _SESSION), as_of_ms)
    kernel.ratings(out, at := at + kernel.SESSION_COLUMNS, recent["kind"], recent["value"])
    kernel.attributes(out, at := at + kernel.RATED_COLUMNS, user["attributes"], _AS_THEY_COME)
    stated = user["context"]
    kernel.context(
        out, at := at + len(USER_ATTRIBUTES), stated["time_ms"], stated["value"], as_of_ms
    )
    kernel.attributes(out, at := at + len(CONTEXT_ATTRIBUTES), items["attributes"], of_item)
    kernel.categories(
        out,
        of_categories,
        at := at + len(ITEM_ATTRIBUTES),
        _counted(categories),
        category_hash,
        of_category,
        tuple(tastes[name] for name in _TASTES),
        (recent["category"], recent["time_ms"]),
        as_of_ms,
    )
    kernel.clock(out, at := at + kernel.AFFINITY_COLUMNS, as_of_ms)
    at += kernel.CLOCK_COLUMNS
    assert spec.NAMES[at:] == spec.TOLD_BY_TABLE, at
    out[:, at:] = _UNTOLD
    return out


def partial_vectors(
    user: Rows,
    items: Rows,
    categories: Rows,
    as_of_ms: npt.NDArray[np.int64],
    *,
    item_of: Places,
    category_of: Places,
    category_hash: npt.NDArray[np.uint64],
) -> npt.NDArray[np.float32]:
    """Columns PARTIAL of the vectors that `snapshot` makes of the same, bit by bit.

    They are those that differ between the candidates of a request, without windows of items, which
    take most of the time.

    Args: as in `snapshot`, for one user and one time.

    Returns: float32, shape (n, len(PARTIAL)).
    """
    out = np.empty((len(item_of), len(PARTIAL)), np.float32)
    tastes, recent, at = user["tastes"], user["recent"], kernel.ALL_TIME_COLUMNS
    kernel.all_time(out, 0, _counted(items), item_of, as_of_ms)
    kernel.categories(
        out,
        at,
        at + kernel.COUNTER_COLUMNS + len(ITEM_ATTRIBUTES),
        _counted(categories),
        category_hash,
        category_of,
        tuple(tastes[name] for name in _TASTES),
        (recent["category"], recent["time_ms"]),
        as_of_ms,
    )
    kernel.attributes(out, at + kernel.COUNTER_COLUMNS, items["attributes"], item_of)
    return out


def _counted(rows: Rows) -> tuple[npt.NDArray[Any], ...]:
    return rows["head"], rows["counts"], rows["totals"], rows["last_ms"]


def hashes_of(names: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint64]:
    """id64 of each name, 0 of an empty one; both arrays of shape (n,)."""
    known, which = np.unique(names, return_inverse=True)
    hashes = [id64(name.decode()) if name else 0 for name in known.tolist()]
    return np.array(hashes, np.uint64)[which]
