"""Open Bandit, a shop's log with known propensities, as our events in event time.

Protocol
- A row is an impression at its time, in position 0 to 2 (the log's 1, 2, 3: left, centre, right),
  and, if clicked, a click one second later (the log has no time of clicks).
- Rows of one page are not marked as such, so a row is a request of its own, named by policy,
  campaign and row. Ids therefore hold for one file: the small one and the full one are two logs.
- `propensity_score` is the logging policy's probability of the item at that position. A history has
  no place for it: it stands beside, aligned with the impressions.
- There is NO user in the log. The user of an event is the segment of all who share the four hashed
  user features; a segment's sessions and tastes are those of a crowd, not of a person.
- `user-item_affinity` (past clicks) is not read: those clicks are not in the log.
- Items are the rows of item_context.csv: `item_feature_1` (hashed) is the category, `feature_0` an
  attribute; the other two are hashed text and have no place.

Saito et al., "Open Bandit Dataset and Pipeline: Towards Realistic and Reproducible Off-Policy
Evaluation", NeurIPS 2021 Datasets and Benchmarks; CC BY 4.0. A row takes 580 bytes while it is
read, so the campaign of most rows is best read in parts. Measured on a million, 5 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from pipelines.datasets.history import History
from pipelines.datasets.log import Facts, Floats, Log, Part, as_history, nowhere
from pipelines.datasets.tables import (
    CODED,
    REAL,
    WHOLE,
    joined,
    numbered,
    numbers,
    places,
    read_delimited,
    require,
    whole,
)
from rankstream.contracts.columns import Ints, Kind

FEEDBACK_DELAY_MS: Final = 1_000
POSITIONS: Final = 3
_SEGMENT: Final = tuple(f"user_feature_{k}" for k in range(4))
_ROWS: Final = {
    "timestamp": pa.timestamp("us", "UTC"),
    "item_id": WHOLE,
    "position": WHOLE,
    "click": WHOLE,
    "propensity_score": REAL,
    **dict.fromkeys(_SEGMENT, CODED),
}
_ITEMS: Final = {"item_id": WHOLE, "item_feature_0": REAL, "item_feature_1": CODED}


@dataclass(frozen=True, eq=False)
class LoggedBandit:
    """A history and what its policy knew.

    `impression` int64, shape (k,), ascending: the rows of `history.columns` that are impressions;
    `propensity` float64, shape (k,), in (0, 1], of each.
    """

    history: History
    impression: Ints
    propensity: Floats


def history(folder: Path, *, until_ms: int | None = None) -> History:
    """Impressions and clicks as events, and the items; see `read` for the propensities."""
    return read(folder, until_ms=until_ms).history


def read(folder: Path, *, until_ms: int | None = None) -> LoggedBandit:
    """The log of one policy and one campaign.

    Args:
        folder: `<policy>/<campaign>`, which holds <campaign>.csv and item_context.csv.
        until_ms: the last event is shifted there; None keeps the times of the log.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    path = folder / f"{folder.resolve().name}.csv"
    rows = read_delimited(path, _ROWS, delimiter=",", header=True, quoted=False)
    require(path, np.full(1, len(rows) > 0), np.zeros(1), "there are no rows", first=1)
    time_ms = whole(rows["timestamp"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(WHOLE))
    position, clicked = whole(rows["position"]), whole(rows["click"])
    propensity = numbers(rows["propensity_score"])
    fits = (position >= 1) & (position <= POSITIONS)
    require(path, time_ms > 0, rows["timestamp"], "timestamp is before 1970", first=2)
    require(path, fits, position, f"position is outside 1..{POSITIONS}", first=2)
    require(path, (clicked | 1) == 1, clicked, "click is not 0 or 1", first=2)
    fits = (propensity > 0) & (propensity <= 1)
    require(path, fits, propensity, "propensity_score is outside (0, 1]", first=2)
    order = np.argsort(time_ms, kind="stable")
    log = _log(folder, path, rows, order)
    time_ms, clicks = time_ms[order], np.flatnonzero(clicked[order])
    parts = [
        Part(Kind.IMPRESSION, np.arange(len(order)), time_ms),
        Part(Kind.CLICK, clicks, time_ms[clicks] + FEEDBACK_DELAY_MS),
    ]
    found = as_history(log, parts, until_ms=until_ms)
    # Both are in order of time and then of the file: impression k is row k of the log.
    return LoggedBandit(
        found, np.flatnonzero(found.columns.kind == Kind.IMPRESSION), propensity[order]
    )


def _log(folder: Path, path: Path, rows: pa.Table, order: Ints) -> Log:
    context_path = folder / "item_context.csv"
    context = read_delimited(context_path, _ITEMS, delimiter=",", header=True, quoted=False)
    item = places(context_path, whole(context["item_id"]), path, whole(rows["item_id"]), first=2)
    users, user = numbered(joined(*(rows[name].combine_chunks() for name in _SEGMENT)))
    categories, category = numbered(context["item_feature_1"])
    policy, campaign = folder.resolve().parent.name, folder.resolve().name
    requests = joined("obd", policy, campaign, order)
    n = len(order)
    return Log(
        users=users,
        items=[str(item) for item in context["item_id"].to_pylist()],
        user=user[order],
        item=item[order],
        names=requests,
        requests=requests,
        request=np.arange(n),
        position=(whole(rows["position"])[order] - 1).astype(np.int32),
        category=np.where(np.array(categories)[category] == "", -1, category),
        location=nowhere(n),
        categories=categories,
        item_facts=Facts(("feature_0",), numbers(context["item_feature_0"])[:, None]),
    )
