"""Avazu, a log of mobile advertisements, as our events in event time.

Protocol
- A row is an impression and, if `click` is 1, a click one second later. The row's id is the
  request's.
- Time is known by the hour (`hour`, YYMMDDHH, taken as UTC): every impression stands at the start
  of its hour. So nothing of an hour is known to its own impressions, and all of it to those of the
  next: features are older than they would be live, never from the future. Within an hour the order
  is that of the file, and sessions are hours; measure neither with this log.
- There is NO user id: `device_id` is one value for most rows. The user is `device_ip` and
  `device_model` together, as is the custom with this log: households and offices behind one address
  with one model are one user, a phone on the move is many.
- The item is `C14`, the finest of the anonymous columns that stay with an advertisement. It is an
  assumption. There is no category, no title, no attribute.
- Position is `banner_pos`, a code of the slot from 0; that 0 is the top slot is not documented.
- `location` is `site-<site_id>`, or `app-<app_id>` where the site is the null site.
- Not used: the other anonymous columns, domains, categories of site and app, device and connection
  types: they describe the request, and our impressions carry no features of it.

Avazu click-through rate prediction, Kaggle 2014, competition rules: research and education only.
The rows are a sample in which clicks and non-clicks were drawn apart: its CTR is not the site's.
A row takes 450 bytes while it is read, so all 40 million want 18 GB; a part of the file reads as
well. Measured on 2 million generated rows, 7 s a million.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.history import History
from pipelines.datasets.log import Log, Part, as_history, nowhere
from pipelines.datasets.tables import (
    CODED,
    TEXT,
    WHOLE,
    first_of_each,
    joined,
    numbered,
    read_delimited,
    refusal,
    require,
    unreadable,
    whole,
)
from rankstream.contracts.columns import POSITION_MAX, Ints, Kind

FEEDBACK_DELAY_MS: Final = 1_000
NULL_SITE: Final = "85f751fd"
FILES: Final = ("train", "train.csv", "train.gz")
_ROWS: Final = {
    "id": TEXT,
    "click": WHOLE,
    "hour": CODED,
    "banner_pos": WHOLE,
    "site_id": CODED,
    "app_id": CODED,
    "device_ip": CODED,
    "device_model": CODED,
    "C14": CODED,
}


def history(folder: Path, *, until_ms: int | None = None) -> History:
    """Impressions and clicks as events, and the advertisements.

    Args:
        folder: holds the training file: train, train.csv or train.gz.
        until_ms: the last event is shifted there; None keeps the times of the log.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    path = next((folder / name for name in FILES if (folder / name).exists()), None)
    if path is None:
        raise unreadable(folder / FILES[0], FileNotFoundError())
    rows = read_delimited(path, _ROWS, delimiter=",", header=True, quoted=False)
    require(path, np.full(1, len(rows) > 0), np.zeros(1), "there are no rows", first=1)
    clicked, position = whole(rows["click"]), whole(rows["banner_pos"])
    require(path, (clicked | 1) == 1, clicked, "click is not 0 or 1", first=2)
    fits = (position >= 0) & (position < POSITION_MAX)
    require(path, fits, position, f"banner_pos is outside 0..{POSITION_MAX - 1}", first=2)
    once = np.zeros(len(rows), bool)
    once[first_of_each(rows["id"].combine_chunks())] = True
    require(path, once, rows["id"], "the id is there before", first=2)
    for name in ("id", "C14"):
        known = pc.not_equal(rows[name].cast(TEXT), "").to_numpy().astype(bool)
        require(path, known, rows[name], f"{name} is empty", first=2)
    time_ms = _hours(path, rows["hour"])
    clicks = np.flatnonzero(clicked)
    parts = [
        Part(Kind.IMPRESSION, np.arange(len(rows)), time_ms),
        Part(Kind.CLICK, clicks, time_ms[clicks] + FEEDBACK_DELAY_MS),
    ]
    return as_history(_log(rows), parts, until_ms=until_ms)


def _hours(path: Path, column: pa.ChunkedArray) -> Ints:
    hours, hour = numbered(column)
    starts = []
    for place, text in enumerate(hours):
        try:
            # strptime alone takes fewer digits, too.
            start = datetime.strptime(f"{text}+0000" if len(text) == 8 else "", "%y%m%d%H%z")
        except ValueError:
            line = int(np.flatnonzero(hour == place)[0]) + 2
            raise refusal(path, line, f"hour {text[:40]!r} is not YYMMDDHH") from None
        starts.append(round(start.timestamp()) * 1_000)
    found: Ints = np.array(starts, np.int64)[hour]
    require(path, found > 0, column, "hour is before 1970", first=2)
    return found


def _log(rows: pa.Table) -> Log:
    n = len(rows)
    users, user = numbered(
        joined(*(rows[k].combine_chunks() for k in ("device_ip", "device_model")))
    )
    items, item = numbered(rows["C14"])
    site, app = (rows[name].cast(TEXT) for name in ("site_id", "app_id"))
    where = pc.if_else(
        pc.equal(site, NULL_SITE),
        pc.binary_join_element_wise("app", app, "-"),
        pc.binary_join_element_wise("site", site, "-"),
    )
    locations, location = numbered(where)
    requests = joined("avazu", rows["id"].combine_chunks())
    return Log(
        users=users,
        items=items,
        user=user,
        item=item,
        names=requests,
        requests=requests,
        request=np.arange(n),
        position=whole(rows["banner_pos"]).astype(np.int32),
        category=nowhere(len(items)),
        location=location,
        locations=locations,
    )
