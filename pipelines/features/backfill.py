"""Feature rows over time: the log replayed through the fold, a row for each change of an entity.

A row found at time t holds what happened strictly before t, as in training (`replay`): what an
event at t - 1 ms changed is found from t on. Users' rows carry the stamp of the log that they
reflect; others' none, because theirs is of a topic that the lake does not keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.features.lake import Logged
from pipelines.features.point_in_time import Added, counters_before
from pipelines.features.replay import (
    NOTHING_KNOWN,
    Ints,
    ItemFacts,
    UserReplay,
    Windows,
    added_to,
    attributed,
    describe,
    in_event_time,
    places,
)
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    FEATURE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    View,
)
from rankstream.features.deltas import Additions, Entity
from rankstream.features.items import ROWS
from rankstream.features.rows import ITEM_ROW, Rows
from rankstream.stream.intake import Intake, take_in

TIME: Final = "event_timestamp"
FILE: Final = "rows.parquet"
CHUNK_MOMENTS: Final = 50_000
_TIME_BITS: Final = 42


@dataclass(frozen=True, eq=False)
class Found:
    """Rows of some entities: ids, int64 `from_ms` when each is found from, packed rows."""

    ids: Sequence[str]
    from_ms: Ints
    rows: Rows


def backfill(
    log: Logged,
    items: Mapping[str, ItemFacts],
    out: Path,
    *,
    until_ms: int,
    every_ms: int,
    windows: Windows,
    step: Callable[[str, int, int], None],
) -> dict[str, int]:
    """Write `out`/<view>/rows.parquet of every view, each whole or not at all; rows by view.

    Args:
        every_ms: rows are found from multiples of this on: 1 keeps every change, 3_600_000 the
            last one of each hour.
    """
    columns = log.columns
    rows = in_event_time(columns, until_ms=until_ms)
    intake = take_in(columns, rows)
    _, additions = attributed(intake, windows)
    first_ms = int(columns.event_time_ms[rows].min())
    found = {
        USER_STATE: _users(log, intake, additions, windows, every_ms),
        ITEM_STATE: _items(additions, items, first_ms, every_ms),
        CATEGORY_STATE: _keys(additions, Entity.CATEGORY, every_ms),
        QUERY_STATE: _keys(additions, Entity.QUERY, every_ms),
        LOCATION_STATE: _keys(additions, Entity.LOCATION, every_ms),
    }
    written = {}
    for done, (view, parts) in enumerate(found.items()):
        step("feature rows", done, len(found))
        written[view.name] = _write(out / view.name / FILE, view, parts)
    step("feature rows", len(found), len(found))
    return written


def _write(path: Path, view: View, parts: Iterable[Found]) -> int:
    schema = pa.schema(
        [(view.join_key, pa.string()), (FEATURE, pa.binary()), (TIME, pa.timestamp("ms", "UTC"))]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    count = 0
    with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for part in parts:
            packed = np.ascontiguousarray(part.rows).view(f"V{view.row_bytes}").reshape(-1)
            columns = [
                pa.array(part.ids, pa.string()),
                pa.array([row.tobytes() for row in packed], pa.binary()),
                pa.array(part.from_ms).cast(schema.field(TIME).type),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            count += len(part.ids)
    unfinished.replace(path)
    return count


def _moments(entity: Ints, time_ms: Ints, every_ms: int) -> tuple[Ints, Ints]:
    """Distinct (entity, when its changes are found from), in order."""
    pairs = np.unique(np.stack([entity, (time_ms // every_ms + 1) * every_ms]), axis=1)
    return pairs[0], pairs[1]


def _items(
    additions: Additions, items: Mapping[str, ItemFacts], first_ms: int, every_ms: int
) -> Iterator[Found]:
    names = sorted({*_names(additions, Entity.ITEM), *items})
    facts = [items.get(name, NOTHING_KNOWN) for name in names]
    added = added_to(additions, Entity.ITEM, places(names))
    entity, from_ms = _moments(added.entity, added.time_ms, every_ms)
    # What is known of an item was known before anything happened to it.
    entity = np.concatenate([np.arange(len(names)), entity])
    from_ms = np.concatenate([np.full(len(names), first_ms), from_ms])
    for part, rows in _counted(ITEM_ROW, entity, from_ms, added):
        describe(rows, entity[part], facts)
        yield Found([names[k] for k in entity[part].tolist()], from_ms[part], rows)


def _keys(additions: Additions, counted: Entity, every_ms: int) -> Iterator[Found]:
    names = sorted(_names(additions, counted))
    added = added_to(additions, counted, places(names))
    entity, from_ms = _moments(added.entity, added.time_ms, every_ms)
    for part, rows in _counted(ROWS[counted], entity, from_ms, added):
        yield Found([names[k] for k in entity[part].tolist()], from_ms[part], rows)


def _names(additions: Additions, entity: Entity) -> list[str]:
    """The keys of an entity that are added to."""
    _, key = additions.keys(entity)
    return [additions.strings[k] for k in np.unique(key).tolist()]


def _counted(
    dtype: np.dtype[np.void], entity: Ints, from_ms: Ints, added: Added
) -> Iterator[tuple[npt.NDArray[np.intp], Rows]]:
    """Places of moments and their rows, some entities at a time."""
    order = np.lexsort((from_ms, entity))
    by_entity = np.argsort(added.entity, kind="stable")
    asked, adding = entity[order], added.entity[by_entity]
    start = 0
    while start < len(order):
        # Whole entities, at least one.
        last = asked[min(start + CHUNK_MOMENTS, len(order)) - 1]
        if start + CHUNK_MOMENTS < len(order) and last != asked[start]:
            last -= 1
        end = int(np.searchsorted(asked, last, side="right"))
        part = order[start:end]
        low, high = np.searchsorted(adding, [asked[start], last + 1])
        mine = by_entity[low:high]
        rows = counters_before(
            dtype,
            entity[part] - asked[start],
            from_ms[part],
            Added(added.entity[mine] - asked[start], added.time_ms[mine], added.amounts[mine]),
        )
        yield part, rows
        start = end


def _users(
    log: Logged, intake: Intake, additions: Additions, windows: Windows, every_ms: int
) -> Iterator[Found]:
    columns = log.columns
    changing = np.concatenate([intake.activity, intake.updates])
    changing = changing[np.argsort(columns.event_time_ms[changing], kind="stable")]
    codes, user = np.unique(columns.user_id[changing], return_inverse=True)
    names = [columns.strings[code] for code in codes.tolist()]
    user = user.astype(np.int64)
    time_ms = columns.event_time_ms[changing]
    entity, from_ms = _moments(user, time_ms, every_ms)
    if not len(entity):
        return
    partition, offset = _stamps(
        (user, time_ms, log.partition[changing], log.offset[changing]), entity, from_ms
    )
    replay = UserReplay(intake, additions, windows)
    for part, packed in replay.before(names, entity, from_ms):
        packed["partition"], packed["offset"] = partition[part], offset[part]
        yield Found([names[k] for k in entity[part].tolist()], from_ms[part], packed)


def _stamps(
    events: tuple[Ints, Ints, Ints, Ints], entity: Ints, from_ms: Ints
) -> tuple[Ints, Ints]:
    """Partition and greatest offset of what each moment's entity has seen before it.

    Args:
        events: entity, time, partition and offset of each event, shape (m,), in order of time.

    Of an entity whose partition has changed, offsets of the last one count; before that -1.
    """
    who, when, partition, offset = events
    last = np.zeros(int(who.max()) + 1, np.int64)
    last[who] = partition
    kept = np.flatnonzero(partition == last[who])
    kept = kept[np.argsort(who[kept], kind="stable")]
    start_ms = min(int(when.min()), int(from_ms.min()))
    place = (who[kept] << _TIME_BITS) | (when[kept] - start_ms)
    seen = np.searchsorted(place, (entity << _TIME_BITS) | (from_ms - start_ms)) - 1
    # Sorted by entity, so that the greatest so far is never another's.
    bits = int(offset.max()).bit_length()
    greatest = np.maximum.accumulate((who[kept] << bits) | offset[kept])
    known = (seen >= 0) & (who[kept][seen] == entity)
    stamp = np.where(known, greatest[seen] & ((1 << bits) - 1), -1)
    return last[entity], stamp
