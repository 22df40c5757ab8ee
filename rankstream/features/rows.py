"""The packed state of a user, an item and so on: what Redis holds and `snapshot` reads.

Counters are rings of event-time buckets, so a windowed count decays by itself
when it is read and is the same whenever, and in whatever order, its events
arrived. Money and ratings are fixed-point micros, so that sums are exact.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.contracts.base import CATEGORY_BYTES_MAX
from rankstream.features.attributes import ITEM_ATTRIBUTES, USER_ATTRIBUTES

MICROS: Final = 1_000_000


class Window(NamedTuple):
    """The last `buckets` buckets of `bucket_ms`, the current one included."""

    name: str
    bucket_ms: int
    buckets: int


class ContextAttribute(NamedTuple):
    """A number that a `context` event may state: it holds for `ttl_ms`, the end included.

    `unknown` is the feature's value where none was stated or the newest one holds no more.
    """

    name: str
    ttl_ms: int
    unknown: float


WINDOWS: Final = (
    Window("5m", 60_000, 5),
    Window("1h", 600_000, 6),
    Window("24h", 10_800_000, 8),
    Window("7d", 86_400_000, 7),
)
SLOTS: Final = sum(window.buckets for window in WINDOWS)
FIRST_SLOT: Final = tuple(sum(w.buckets for w in WINDOWS[:i]) for i in range(len(WINDOWS)))
BUCKET_MS: Final = np.array([window.bucket_ms for window in WINDOWS])
BUCKETS: Final = np.array([window.buckets for window in WINDOWS])
# Of each slot: its window, and its place there.
WINDOW_OF: Final = np.repeat(np.arange(len(WINDOWS)), BUCKETS)
_SLOT: Final = np.arange(SLOTS) - np.array(FIRST_SLOT)[WINDOW_OF]

COUNTERS: Final = ("impressions", "clicks", "views", "purchases")
TOTALS: Final = (*COUNTERS, "value_micros", "ratings", "rating_micros")
RECENT: Final = 50
RATED: Final = 200
CATEGORIES: Final = 32
_HOUR_MS: Final = 3_600_000
# Weather is reported by the hour, so two reports may be missed; a jam clears sooner than that, and
# an event lasts an evening.
CONTEXT_ATTRIBUTES: Final = (
    ContextAttribute("temperature_c", 3 * _HOUR_MS, -100.0),
    ContextAttribute("rain_mm_h", 3 * _HOUR_MS, -1.0),
    ContextAttribute("traffic", _HOUR_MS // 2, -1.0),  # 0: free, 1: at a standstill
    ContextAttribute("local_events", 6 * _HOUR_MS, -1.0),  # how many are on nearby
)

# Ring slot of bucket b in window w is FIRST_SLOT[w] + b % buckets; `head[w]` is
# the newest bucket that has been written, and slots hold buckets (head - buckets, head].
_COUNTERS_ROW: Final = [
    ("partition", "<i4"),  # stamp: see Stamp in events.proto
    ("offset", "<i8"),
    ("items_offset", "<i8"),
    ("head", "<i8", (len(WINDOWS),)),
    ("counts", "<i4", (SLOTS, len(COUNTERS))),
    ("value_micros", "<i8", (SLOTS,)),
    ("totals", "<i8", (len(TOTALS),)),
    ("last_ms", "<i8"),  # newest event; 0: never seen
]

CATEGORY_ROW: Final = np.dtype(_COUNTERS_ROW)
# Of a query or a location.
CONTEXT_ROW: Final = CATEGORY_ROW

ITEM_ROW: Final = np.dtype(
    [
        *_COUNTERS_ROW,
        ("category", f"S{CATEGORY_BYTES_MAX}"),
        ("withdrawn", "<u1"),
        ("attributes", "<f4", (len(ITEM_ATTRIBUTES),)),  # nan: unknown
    ]
)

# Recent actions of kinds CLICK, VIEW, RATE and PURCHASE, repeats included, newest first by
# (event time, item, kind, value, category).
RECENT_ACTION: Final = np.dtype(
    [("item", "<u8"), ("category", "<u8"), ("time_ms", "<i8"), ("value", "<f4"), ("kind", "<u1")]
)
# What the user rated last, repeats included, newest first by (event time, item, value). Recent
# actions forget ratings sooner, as clicks and views take places there too.
RATED_ITEM: Final = np.dtype([("item", "<u4"), ("value", "<f4")])  # id32; 0: none
# What the user did with a category, ever; the 32 categories used last.
CATEGORY_TASTE: Final = np.dtype(
    [
        ("category", "<u8"),  # id64; 0: empty
        ("last_ms", "<i8"),
        ("impressions", "<i4"),
        ("clicks", "<i4"),
        ("ratings", "<i4"),
        ("rating_micros", "<i8"),
    ]
)
# What was stated last of the context of a user, and when; nan and 0: nothing.
STATED_VALUE: Final = np.dtype([("time_ms", "<i8"), ("value", "<f4")])
USER_ROW: Final = np.dtype(
    [
        *_COUNTERS_ROW,
        ("recent", RECENT_ACTION, (RECENT,)),
        ("rated", RATED_ITEM, (RATED,)),
        ("tastes", CATEGORY_TASTE, (CATEGORIES,)),
        ("session_start_ms", "<i8"),  # 0: none open; the last session of the user
        ("session_last_ms", "<i8"),
        ("session_impressions", "<i4"),
        ("session_clicks", "<i4"),
        ("attributes", "<f4", (len(USER_ATTRIBUTES),)),
        ("context", STATED_VALUE, (len(CONTEXT_ATTRIBUTES),)),  # of CONTEXT_ATTRIBUTES
    ]
)

Rows = npt.NDArray[np.void]


def empty_rows(n: int, dtype: np.dtype[np.void]) -> Rows:
    """n rows of nothing known: zero counters, attributes nan, stamp offset -1."""
    rows = np.zeros(n, dtype)
    rows["offset"] = -1
    rows["items_offset"] = -1
    rows["head"] = 0
    if dtype.names and "attributes" in dtype.names:
        rows["attributes"] = np.nan
    if dtype.names and "context" in dtype.names:
        rows["context"]["value"] = np.nan
    return rows


def raw(column: npt.NDArray[Any]) -> memoryview:
    """The bytes of an array; of a contiguous one in place, so good until it is written to."""
    return np.ascontiguousarray(column).reshape(-1).view(np.uint8).data


def buckets_held(head: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket in each slot, shape (SLOTS, n), of rings with these heads, shape (windows, n)."""
    place = head % BUCKETS[:, None]
    age = place[WINDOW_OF] - _SLOT[:, None]
    age += np.where(age < 0, BUCKETS[WINDOW_OF, None], 0)
    held: npt.NDArray[np.int64] = head[WINDOW_OF] - age
    return held


def windowed(rows: Rows, as_of_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Counts in each window as of a time.

    Args:
        rows: counters rows, shape (n,).
        as_of_ms: shape (n,) or (1,).

    Returns: shape (n, 4 windows, 4 counters), order of WINDOWS and COUNTERS.
    """
    # Columns of rows beside one another: numpy's inner loop is then as long as there are rows.
    head = np.ascontiguousarray(rows["head"].T)
    held = buckets_held(head)
    now = (as_of_ms // BUCKET_MS[:, None])[WINDOW_OF]
    live = (held > now - BUCKETS[WINDOW_OF, None]) & (held <= now) & (held >= 0)
    counts = np.ascontiguousarray(rows["counts"]).transpose(1, 2, 0).astype(np.int64, order="C")
    counts *= live.astype(np.int64)[:, None]
    out = np.empty((len(WINDOWS), len(COUNTERS), len(rows)), np.int64)
    for w, (first, window) in enumerate(zip(FIRST_SLOT, WINDOWS, strict=True)):
        counts[first : first + window.buckets].sum(axis=0, out=out[w])
    return out.transpose(2, 0, 1)
