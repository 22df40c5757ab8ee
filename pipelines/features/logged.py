"""Training rows out of what was served: the vectors that rankers scored, and their final labels.

A vector of `served` is what the ranker knew, so nothing is rebuilt and nothing can be skewed. What
has no such vector (served before the features were what they are, or by somebody else, or its label
is not final yet) is replayed from the events, see `replay`. The label of a row is that of the lake,
as the features service decided it with its own windows; it is final once they have closed, and no
other label is used. An item that was served and never seen on screen is no row, as in `replay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.features.lake import of_offsets
from pipelines.features.replay import (
    Ints,
    ItemFacts,
    TrainingRows,
    Windows,
    in_event_time,
    places,
    training_rows,
)
from pipelines.validate.leakage import newest_event_ms
from rankstream import topics
from rankstream.contracts.columns import EventColumns
from rankstream.contracts.ids import id64
from rankstream.contracts.labels import FINAL
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.features.rows import RECENT
from rankstream.stream.intake import take_in

Ends = Mapping[int, int]  # partition -> offset after the last record that counts

_KEY: Final = (("user_id", pa.string()), ("request_id", pa.string()), ("item_id", pa.string()))
SERVED: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("row", pa.int32()),  # the slot
        *_KEY,
        ("served_time_ms", pa.int64()),
        ("spec_id", pa.string()),
        ("features", pa.list_(pa.float32())),
        ("degraded", pa.list_(pa.string())),
    ]
)
LABELS: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        *_KEY,
        ("impression_time_ms", pa.int64()),
        ("status", pa.int8()),
        ("clicked", pa.int8()),
        ("purchased", pa.int8()),
        ("position", pa.int32()),
    ]
)


class Which(StrEnum):
    """Which rows to train on."""

    LOGGED = "logged"
    REPLAYED = "replayed"
    BOTH = "both"


class Outcome(StrEnum):
    """What became of a served item; each has one of these."""

    ROW = "row"
    UNSEEN = "unseen"  # no impression: no negative
    OPEN = "open"  # its label is not final yet
    EARLIER = "earlier"  # shown before the rows that were asked for
    REPEATED = "repeated"  # served again under the same key, or the label of another time
    # Refused:
    SPEC_MISMATCH = "spec_mismatch"  # other features than this version makes
    NO_VECTOR = "no_vector"
    FEATURES_TIMEOUT = "features_timeout"  # scored on defaults: its user was not unknown
    EVENT_NOT_BEFORE = "event_not_before"  # knows of an event at or after its own time


# Which slot a label belongs to: the last that was served up to the impression, else the first.
# Of the labels of a key the earliest final one counts, one that is open only if none is final.
_JOIN: Final = f"""
    WITH label AS (
      SELECT user_id, request_id, item_id, impression_time_ms, status, clicked, purchased,
        position
      FROM labels
      QUALIFY row_number() OVER (
        PARTITION BY user_id, request_id, item_id
        ORDER BY status DESC, impression_time_ms, "partition", "offset") = 1),
    slot AS (
      SELECT s.*, l.* EXCLUDE (user_id, request_id, item_id),
        row_number() OVER (
          PARTITION BY s.user_id, s.request_id, s.item_id
          ORDER BY s.served_time_ms > l.impression_time_ms,
            abs(s.served_time_ms - l.impression_time_ms),
            s."partition", s."offset", s."row") AS turn
      FROM served s LEFT JOIN label l USING (user_id, request_id, item_id))
    SELECT place, user_id, item_id, served_time_ms, impression_time_ms, clicked, purchased,
      position, CASE
        WHEN turn > 1 THEN '{Outcome.REPEATED}'
        WHEN status IS NULL THEN '{Outcome.UNSEEN}'
        WHEN status <> {FINAL} THEN '{Outcome.OPEN}'
        WHEN impression_time_ms < $from_ms THEN '{Outcome.EARLIER}'
        WHEN spec_id <> '{spec.SPEC_ID}' THEN '{Outcome.SPEC_MISMATCH}'
        WHEN coalesce(width, 0) <> {spec.WIDTH} THEN '{Outcome.NO_VECTOR}'
        WHEN list_contains(degraded, 'features_timeout') THEN '{Outcome.FEATURES_TIMEOUT}'
        ELSE '{Outcome.ROW}' END AS outcome
    FROM slot
    ORDER BY impression_time_ms, user_id, request_id, item_id
"""


@dataclass(frozen=True, eq=False)
class Slates:
    """Rows of the lake's `served`, one per slot, and of its `labels`."""

    served: pa.Table
    labels: pa.Table

    def ends(self) -> tuple[dict[int, int], dict[int, int]]:
        """Those of `served` and of `labels`: `before` of a `read_slates` that gives the same rows.

        Slots and final labels never change, and later ones have greater offsets.
        """
        return _ends(self.served), _ends(self.labels)


@dataclass(frozen=True, eq=False)
class Made:
    """Rows, how many of them were logged, and what became of the served items."""

    rows: TrainingRows
    logged: int
    outcomes: Mapping[str, int]

    def counts(self) -> dict[str, int]:
        """How many rows came from where, and served items that became none, by Outcome."""
        others = {name: n for name, n in self.outcomes.items() if name != Outcome.ROW}
        return {"logged": self.logged, "replayed": len(self.rows) - self.logged, **others}


def read_slates(lake: Path, *, until_ms: int, before: tuple[Ends, Ends] | None = None) -> Slates:
    """What was served and shown up to `until_ms`; nothing if the lake has no such table.

    Args:
        before: ends of `served` and of `labels`: of these partitions what is before, of others
            nothing.

    Raises: InvalidInput: a table is there and cannot be read.
    """
    served_before, labels_before = before or (None, None)
    served = ds.field("served_time_ms") <= until_ms
    labels = ds.field("impression_time_ms") <= until_ms
    return Slates(
        _read(lake / topics.SERVED.name, SERVED, served, served_before),
        _read(lake / topics.LABELS.name, LABELS, labels, labels_before),
    )


def _read(path: Path, schema: pa.Schema, wanted: ds.Expression, before: Ends | None) -> pa.Table:
    if before is not None:
        wanted &= of_offsets(before)
    try:
        table = DeltaTable(str(path)).to_pyarrow_table(columns=schema.names, filters=wanted)
    except TableNotFoundError:
        return schema.empty_table()
    except (DeltaError, pa.ArrowInvalid) as error:
        raise InvalidInput(
            f"invalid_input: lake table {path} cannot be read: {str(error)[:200]}."
            " Nothing was trained. Mend it, or train with --rows replayed."
        ) from None
    return table


def _ends(table: pa.Table) -> dict[int, int]:
    last = (
        table.select(["partition", "offset"]).group_by("partition").aggregate([("offset", "max")])
    )
    return {int(row["partition"]): int(row["offset_max"]) + 1 for row in last.to_pylist()}


def make_rows(
    columns: EventColumns,
    items: Mapping[str, ItemFacts],
    slates: Slates,
    which: Which,
    *,
    from_ms: int = 0,
    until_ms: int,
    windows: Windows,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Logged rows, replayed ones, or logged ones and replayed ones for all other impressions.

    Args:
        columns, items, until_ms, windows, progress: as of replay.training_rows.
        slates: as of read_slates, up to the same time.
        from_ms: rows are of impressions from here on; events before are known to features only.

    Raises: InvalidInput: there are no such rows.
    """

    def replayed() -> TrainingRows:
        rows = training_rows(columns, items, until_ms=until_ms, windows=windows, progress=progress)
        shown = np.flatnonzero(rows.time_ms >= from_ms)
        if not len(shown):
            raise InvalidInput(
                f"invalid_input: {len(rows)} impressions until {until_ms} ms were all before"
                f" {from_ms} ms, from where rows were asked for. No rows were made. Ask from"
                f" {int(rows.time_ms[0])} ms on or later."
            )
        return rows.take(shown)

    if which is Which.REPLAYED:
        return Made(replayed(), 0, {})
    logged, outcomes = logged_rows(slates, columns, from_ms=from_ms, until_ms=until_ms)
    if which is Which.LOGGED:
        if not len(logged):
            raise InvalidInput(
                f"invalid_input: of {slates.served.num_rows} items served until {until_ms} ms none"
                f" has a vector of spec {spec.SPEC_ID} and a final label ({_told(outcomes)})."
                " No rows were made. Wait for the windows of the labels, or train with --rows both."
            )
        return Made(logged, len(logged), outcomes)
    return Made(with_replayed(logged, replayed()), len(logged), outcomes)


def _told(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in outcomes.items()) or "nothing was served"


def logged_rows(
    slates: Slates, columns: EventColumns, *, from_ms: int = 0, until_ms: int
) -> tuple[TrainingRows, dict[str, int]]:
    """One row per served item that was seen and whose label is final; what became of the others.

    Args:
        columns: the log, for what the users did last before they were served.
        from_ms: rows are of impressions from here on.

    Returns: the rows in order of their impressions, and how many served items have which Outcome.
    """
    served = slates.served
    keys = served.drop_columns("features")
    keys = keys.append_column("place", pa.array(np.arange(len(keys))))
    keys = keys.append_column("width", pc.list_value_length(served["features"]))
    with duckdb.connect() as connection:
        connection.register("served", keys)
        connection.register("labels", slates.labels)
        slots = connection.sql(_JOIN, params={"from_ms": from_ms}).to_arrow_table()
    outcomes = Counter[str](slots["outcome"].to_pylist())
    slots = slots.filter(pc.equal(slots["outcome"], Outcome.ROW))
    rows = _rows(slots, _vectors(served["features"].take(slots["place"])))
    sound = newest_event_ms(rows.features, rows.time_ms) < rows.time_ms
    outcomes[Outcome.EVENT_NOT_BEFORE] = int((~sound).sum())
    outcomes[Outcome.ROW] -= outcomes[Outcome.EVENT_NOT_BEFORE]
    served_ms = slots["served_time_ms"].to_numpy()
    recent = recent_before(columns, rows.users, rows.user, served_ms, until_ms=until_ms)
    rows = replace(rows, recent=recent).take(np.flatnonzero(sound))
    return rows, {name: n for name, n in sorted(outcomes.items()) if n}


def _rows(slots: pa.Table, features: npt.NDArray[np.float32]) -> TrainingRows:
    """Rows without recent actions."""
    user, item = (pc.dictionary_encode(slots[n].combine_chunks()) for n in ("user_id", "item_id"))
    return TrainingRows(
        features=features,
        clicked=slots["clicked"].to_numpy().astype(np.uint8),
        time_ms=slots["impression_time_ms"].to_numpy().astype(np.int64),
        user=user.indices.to_numpy().astype(np.int64),
        item=item.indices.to_numpy().astype(np.int64),
        users=tuple(user.dictionary.to_pylist()),
        items=tuple(item.dictionary.to_pylist()),
        recent=np.zeros((len(slots), RECENT), np.uint64),
        position=slots["position"].to_numpy().astype(np.int64),
        # Final labels alone: the conversion window has closed.
        purchased=slots["purchased"].to_numpy().astype(np.int8),
        purchases_come=np.ones(len(slots), np.float32),
    )


def _vectors(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    flat = column.combine_chunks().flatten().to_numpy()
    vectors: npt.NDArray[np.float32] = flat.astype(np.float32).reshape(-1, spec.WIDTH)
    return vectors


def recent_before(
    columns: EventColumns, users: Sequence[str], user: Ints, time_ms: Ints, *, until_ms: int
) -> npt.NDArray[np.uint64]:
    """What `recent` of a user row would be strictly before many moments, as a replay has it.

    Args:
        users: ids; `user`, shape (n,), holds their positions; `time_ms`, shape (n,), when.

    Returns: hashes of items, shape (n, RECENT), newest first, 0: none.
    """
    actions = take_in(columns, in_event_time(columns, until_ms=until_ms)).actions
    known = places(users)
    who = np.array([known.get(text, -1) for text in columns.strings], np.int64)
    who = who[columns.user_id[actions]]
    actions, who = actions[who >= 0], who[who >= 0]
    when = columns.event_time_ms[actions]
    numbers, number = np.unique(columns.item_id[actions], return_inverse=True)
    names = [columns.strings[k] for k in numbers.tolist()]
    item = np.array([id64(name) for name in names], np.uint64)[number]
    order = np.lexsort((item, when, who))
    who, when, item = who[order], when[order], item[order]
    # Sorted by user and time together: `first` is the user's first action, `end` behind the last.
    first = np.searchsorted(who, user)
    end = _places_before(who, when, user, time_ms)
    out = np.zeros((len(user), RECENT), np.uint64)
    for back in range(RECENT):
        place = end - 1 - back
        there = place >= first
        out[there, back] = item[place[there]]
    return out


def _places_before(who: Ints, when: Ints, user: Ints, time_ms: Ints) -> Ints:
    """Where in (who, when), ascending, each (user, time_ms) would be put, before its equals."""
    _, time = np.unique(np.concatenate([when, time_ms]), return_inverse=True)
    step = len(time) + 1
    return np.searchsorted(who * step + time[: len(when)], user * step + time[len(when) :])


def with_replayed(logged: TrainingRows, replayed: TrainingRows) -> TrainingRows:
    """The logged rows, and the replayed ones of all other impressions, in order of time.

    An impression is known by user, item and time.
    """
    users, user = _joint(logged.users, replayed.users)
    items, item = _joint(logged.items, replayed.items)
    mine = zip(logged.user.tolist(), logged.item.tolist(), logged.time_ms.tolist(), strict=True)
    known = set(mine)
    theirs = zip(
        user[replayed.user].tolist(),
        item[replayed.item].tolist(),
        replayed.time_ms.tolist(),
        strict=True,
    )
    other = np.array([key not in known for key in theirs], np.bool_)
    rest = replayed.take(np.flatnonzero(other))
    rest = replace(rest, user=user[rest.user], item=item[rest.item], users=users, items=items)
    order = np.argsort(np.concatenate([logged.time_ms, rest.time_ms]), kind="stable")
    columns: dict[str, Any] = {
        column.name: np.concatenate([getattr(logged, column.name), getattr(rest, column.name)])
        for column in fields(TrainingRows)
        if column.name not in ("users", "items")
    }
    return TrainingRows(**columns, users=users, items=items).take(order)


def _joint(first: Sequence[str], second: Sequence[str]) -> tuple[tuple[str, ...], Ints]:
    """Both without repeats, `first` as it is; where each of `second` stands."""
    names = tuple(dict.fromkeys((*first, *second)))
    index = places(names)
    return names, np.array([index[name] for name in second], np.int64)
