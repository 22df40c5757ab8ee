"""Criteo's two public logs: the one that can be our events, and the one that cannot.

Display (Kaggle 2014, and the terabyte log: label, I1-I13, C1-C26) has no user, no item and no time:
26 hashed columns of which none is said to be any of these. An impression of ours is of somebody, of
something, at a moment; none of it can be had without inventing it, so the file is refused. What it
can measure (a model of 39 columns) needs no events of ours.

Attribution (criteo_attribution_dataset.tsv, packed or not), 30 days of banners:
- A row is an impression at `timestamp`, in position 0 because the log has none; if `click` is 1, a
  click one second later (the log has no time of clicks).
- The user is `uid`, the item is the `campaign`: which product the banner showed is not said.
- A conversion is ONE purchase of value 0 at `conversion_timestamp`, however many rows name its
  `conversion_id`: it names the request of its last clicked impression, or of its last if none was.
- Time is in seconds since the log's first, on a clock of its own: without `until_ms` that second is
  2 January 1970. Intervals are those of the log.
- Rows have no id: the request is named by user, campaign, time and how many before were alike.
- Not used: cost, cpo, `attribution` (Criteo's own credit), `cat1` to `cat9` (the banner's context),
  and click_pos, click_nb and time_since_last_click, which tell of other rows, later ones too.

Diemert et al., "Attribution Modeling Increases Efficiency of Bidding in Display Advertising",
AdKDD 2017; CC BY-NC-SA 4.0. A row takes 430 bytes while it is read: 7 GB for all 16.5 million; a
part of the file reads as well. Measured on a million generated rows, 7 s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from pipelines.datasets.history import History
from pipelines.datasets.log import Log, Part, as_history, nowhere
from pipelines.datasets.tables import (
    WHOLE,
    joined,
    numbered,
    read_delimited,
    require,
    unreadable,
    whole,
)
from rankstream.contracts.columns import Ints, Kind
from rankstream.errors import InvalidInput

FEEDBACK_DELAY_MS: Final = 1_000
FIRST_MS: Final = 86_400_000
SECONDS_MAX: Final = 1 << 40
NONE: Final = -1
FILES: Final = ("criteo_attribution_dataset.tsv", "criteo_attribution_dataset.tsv.gz")
DISPLAY: Final = ("train.txt", "test.txt", "day_0", "day_0.gz")
_ROWS: Final = dict.fromkeys(
    ("timestamp", "uid", "campaign", "conversion_timestamp", "conversion_id", "click"), WHOLE
)


def history(folder: Path, *, until_ms: int | None = None) -> History:
    """Impressions, clicks and conversions of the attribution log as events, and its campaigns.

    Args:
        folder: holds criteo_attribution_dataset.tsv, packed or not.
        until_ms: the last event is shifted there; None keeps the log's own clock.

    Raises: InvalidInput naming file, line and reason, or that this is the display log; nothing is
        read.
    """
    path = next((folder / name for name in FILES if (folder / name).exists()), None)
    if path is None:
        for name in DISPLAY:
            if (folder / name).exists():
                raise InvalidInput(
                    f"invalid_input: {folder / name} is Criteo's display log, whose rows have no"
                    " user, no item and no time. Nothing was read, for events of it would be"
                    " invented. Use the attribution log (criteo_attribution_dataset.tsv)."
                )
        raise unreadable(folder / FILES[0], FileNotFoundError())
    rows = read_delimited(path, _ROWS, delimiter="\t", header=True, quoted=False)
    require(path, np.full(1, len(rows) > 0), np.zeros(1), "there are no rows", first=1)
    column = {name: whole(rows[name]) for name in _ROWS}
    second, then = column["timestamp"], column["conversion_timestamp"]
    require(path, (second >= 0) & (second < SECONDS_MAX), second, "timestamp", first=2)
    fits = (column["click"] | 1) == 1
    require(path, fits, column["click"], "click is not 0 or 1", first=2)
    converted = column["conversion_id"] != NONE
    fits = ~converted | ((then >= second) & (then < SECONDS_MAX))
    require(path, fits, then, "conversion_timestamp is not after the impression", first=2)
    order = np.argsort(second, kind="stable")
    column = {name: values[order] for name, values in column.items()}
    time_ms = FIRST_MS + 1_000 * column["timestamp"]
    clicks, bought = (
        np.flatnonzero(column["click"]),
        _bought(column["conversion_id"], column["click"]),
    )
    # A conversion within its impression's own second is known a second later, as a click is.
    bought_ms = FIRST_MS + 1_000 * column["conversion_timestamp"][bought]
    bought_ms = np.maximum(bought_ms, time_ms[bought] + FEEDBACK_DELAY_MS)
    parts = [
        Part(Kind.IMPRESSION, np.arange(len(order)), time_ms),
        Part(Kind.CLICK, clicks, time_ms[clicks] + FEEDBACK_DELAY_MS),
        Part(Kind.PURCHASE, bought, bought_ms),
    ]
    return as_history(_log(column), parts, until_ms=until_ms)


def _bought(conversion: Ints, clicked: Ints) -> Ints:
    """The row of each conversion: the last of its clicked rows, or of its rows if none was."""
    rows = np.flatnonzero(conversion != NONE)
    ordered = rows[np.lexsort((rows, clicked[rows], conversion[rows]))]
    last = np.flatnonzero(np.diff(conversion[ordered], append=NONE))
    found: Ints = np.sort(ordered[last])
    return found


def _log(column: dict[str, Ints]) -> Log:
    users, user = numbered(pa.array(column["uid"]))
    items, item = numbered(pa.array(column["campaign"]))
    n = len(user)
    alike = np.stack([user, item, column["timestamp"]])
    order = np.lexsort(alike)
    start = np.flatnonzero(np.r_[True, (np.diff(alike[:, order]) != 0).any(axis=0)])
    before = np.empty(n, np.int64)
    before[order] = np.arange(n) - np.repeat(start, np.diff(start, append=n))
    requests = joined("criteo", column["uid"], column["campaign"], column["timestamp"], before)
    return Log(
        users=users,
        items=items,
        user=user,
        item=item,
        names=requests,
        requests=requests,
        request=np.arange(n),
        position=np.zeros(n, np.int32),
        category=nowhere(len(items)),
        location=nowhere(n),
    )
