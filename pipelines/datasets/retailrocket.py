"""Retailrocket, the log of a shop, as our events in event time.

The log has no impressions: it says what a visitor opened, never what was on the page besides. So
it has no click-through rate, no positions and no negatives; `training_rows` refuses it by name. It
serves for what actions alone can do: counters, tastes, sessions, retrieval, conversions of items.

Protocol
- `view` (the item's page was opened) is a view of value 0: the dwell is not known. It names no
  request, for no slate led there that we know of.
- `transaction` is a purchase of value 0 (prices are hashed) without a request: it counts for the
  item but for no slate.
- `addtocart` is NO event. A click is an action on an impression and needs the request that showed
  it; a second view would count the page twice, and a purchase did not happen yet. The carts stand
  beside the history, with their times, for those who want them as a label.
- A repeat of visitor, item, time, event and transaction is one event.
- Event ids are UUIDv5 of those five. Users and items are ids of the log; of users nothing is known.
- Items are those with an event. If the item_properties files are there, an item's category is its
  last `categoryid` and its attribute `available` (0 or 1) the last of that name; other properties
  are hashed and not kept.

Retailrocket recommender system dataset, Kaggle 2017, CC BY-NC-SA 4.0. Generated files of half its
properties and all its 2.7 million events are read in 11 s and 1.3 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.history import History
from pipelines.datasets.log import Facts, Floats, Log, Part, as_history, nowhere
from pipelines.datasets.tables import (
    CODED,
    TEXT,
    TIME_MS_MAX,
    WHOLE,
    first_of_each,
    joined,
    numbered,
    read_delimited,
    require,
    whole,
)
from rankstream.contracts.columns import Ints, Kind

KINDS: Final = ("view", "addtocart", "transaction")
PROPERTIES: Final = ("item_properties_part1.csv", "item_properties_part2.csv")
_EVENTS: Final = {
    "timestamp": WHOLE,
    "visitorid": WHOLE,
    "event": CODED,
    "itemid": WHOLE,
    "transactionid": TEXT,
}
_PROPERTY: Final = {"timestamp": WHOLE, "itemid": WHOLE, "property": CODED, "value": TEXT}
_USED: Final = pa.array(["categoryid", "available"])


@dataclass(frozen=True, eq=False)
class Carts:
    """n items put into carts, in order of time.

    `user`, `item` int64, shape (n,): ids of the log; `time_ms` int64, shape (n,), shifted as the
    history is.
    """

    user: Ints
    item: Ints
    time_ms: Ints


@dataclass(frozen=True, eq=False)
class Shop:
    """The log as a history, and the carts, which have no event of ours."""

    history: History
    carts: Carts


def history(folder: Path, *, until_ms: int | None = None) -> History:
    """Views and purchases as events, and their items; see `read`."""
    return read(folder, until_ms=until_ms).history


def read(folder: Path, *, until_ms: int | None = None) -> Shop:
    """The log and its carts.

    Args:
        folder: holds events.csv and, perhaps, both item_properties files.
        until_ms: the last event is shifted there; None keeps the times of the log.

    Raises: InvalidInput naming file, line and reason; nothing is read.
    """
    path = folder / "events.csv"
    table = read_delimited(path, _EVENTS, delimiter=",", header=True, quoted=False)
    time_ms, event = whole(table["timestamp"]), table["event"]
    require(path, (time_ms > 0) & (time_ms < TIME_MS_MAX), time_ms, "timestamp", first=2)
    known = pc.is_in(event.cast(TEXT), pa.array(KINDS)).to_numpy()
    require(path, known, event, f"event is not one of {', '.join(KINDS)}", first=2)
    table = table.take(pa.array(np.argsort(time_ms, kind="stable")))
    names = joined(
        "retailrocket",
        *(table[name].combine_chunks() for name in ("visitorid", "itemid", "timestamp")),
        *(table[name].combine_chunks() for name in ("event", "transactionid")),
    )
    first = pa.array(first_of_each(names))
    table, names = table.take(first), names.take(first)
    time_ms, kind = whole(table["timestamp"]), table["event"].cast(TEXT)
    views, carts, bought = (
        np.flatnonzero(pc.equal(kind, name).to_numpy().astype(bool)) for name in KINDS
    )
    acts = np.full(1, len(views) + len(bought) > 0)
    require(path, acts, np.zeros(1), "there are no views and no transactions", first=1)
    parts = [
        Part(Kind.VIEW, views, time_ms[views], named=False),
        Part(Kind.PURCHASE, bought, time_ms[bought], named=False),
    ]
    found = as_history(_log(folder, table, names), parts, until_ms=until_ms)
    last_ms = max(int(part.time_ms.max()) for part in parts if len(part.row))
    shift_ms = int(found.columns.event_time_ms[-1]) - last_ms
    user, item = whole(table["visitorid"]), whole(table["itemid"])
    return Shop(found, Carts(user[carts], item[carts], time_ms[carts] + shift_ms))


def _log(folder: Path, table: pa.Table, names: pa.LargeStringArray) -> Log:
    n = len(table)
    users, user = numbered(table["visitorid"])
    items, item = numbered(table["itemid"])
    ids = np.array(items, np.int64)
    categories, category, available = _properties(folder, ids)
    return Log(
        users=users,
        items=items,
        user=user,
        item=item,
        names=names,
        requests=pa.array([], pa.large_string()),
        request=np.zeros(n, np.int64),
        position=np.zeros(n, np.int32),
        category=category,
        location=nowhere(n),
        categories=categories,
        item_facts=Facts(("available",), available[:, None]),
    )


def _properties(folder: Path, ids: Ints) -> tuple[list[str], Ints, Floats]:
    """Categories, and of each item its place in them (-1: none) and whether it can be had."""
    parts = [
        read_delimited(
            folder / name, _PROPERTY, delimiter=",", header=True, quoted=False, keep=_used
        )
        for name in PROPERTIES
        if (folder / name).exists()
    ]
    if not parts:
        return [], nowhere(len(ids)), np.full(len(ids), np.nan)
    table = pa.concat_tables(parts, promote_options="permissive").unify_dictionaries()
    table = table.filter(pc.is_in(table["itemid"], pa.array(ids)))
    table = table.take(pa.array(np.argsort(whole(table["timestamp"]), kind="stable")))
    name = table["property"].cast(TEXT)
    texts, category = _last(table.filter(pc.equal(name, "categoryid")), ids)
    states, state = _last(table.filter(pc.equal(name, "available")), ids)
    number = np.array([*({"0": 0.0, "1": 1.0}.get(text, np.nan) for text in states), np.nan])
    return [f"category-{text}" for text in texts], category, number[state]


def _used(rows: pa.RecordBatch) -> pa.RecordBatch:
    return rows.filter(pc.is_in(rows["property"].cast(TEXT), _USED))


def _last(table: pa.Table, ids: Ints) -> tuple[tuple[str, ...], Ints]:
    """The distinct values, and of each item the place of its last one; -1: it has none."""
    values, value = numbered(table["value"])
    order = np.argsort(ids)
    found = nowhere(len(ids))
    # In order of time: of several values the last one stays.
    found[order[np.searchsorted(ids, whole(table["itemid"]), sorter=order)]] = value
    return values, found
