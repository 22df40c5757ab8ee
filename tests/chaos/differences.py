"""What a run has left behind, held against the reference: every difference, by area."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any, Final

import numpy as np
from deltalake import DeltaTable

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.redis_rows import View, entity_key
from rankstream.pb import events_pb2 as pb
from tests.chaos import reference
from tests.chaos.reference import Key, Label, Placed, Session, Sifted, Unit, Windows
from tests.chaos.rows import Table, rows_of, unstamped
from tests.chaos.run import Outcome

EXAMPLES_MAX: Final = 5
UNMATCHED: Final = "unmatched"
REPEATED_OR_LATE: Final = "duplicates + late"
_LAKE_LABEL: Final = (
    "status",
    "clicked",
    "purchased",
    "value_micros",
    "impression_time_ms",
    "position",
)
_LAKE_COLUMNS: Final = (
    "partition",
    "offset",
    "row",
    "append_time_ms",
    "event_id",
    "kind",
    "event_time_ms",
    "user_id",
    "item_id",
    "request_id",
    "category",
    "position",
    "value",
    "attributes",
)


@dataclass
class Area:
    """One kind of result: how many were compared, how many differ, and some of these."""

    name: str
    compared: int = 0
    differences: int = 0
    examples: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Count one more."""
        self.differences += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(what)

    def same(self, found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
        """Compare two mappings key by key."""
        self.compared += len(wanted)
        for key in wanted.keys() | found.keys():
            if found.get(key) != wanted.get(key):
                self.differ(f"{key}: found {found.get(key)}, the log says {wanted.get(key)}")


def differences(outcome: Outcome, windows: Windows) -> list[Area]:
    """Every area."""
    sifted = reference.sift(outcome.log[topics.EVENTS.name], windows)
    joined = reference.join(sifted.kept)
    labels = reference.labels(joined, windows)
    ended = reference.sessions(sifted.kept, windows.session_gap_ms)
    added = reference.additions(sifted.kept, joined)
    unmatched = reference.unmatched(joined, windows)
    items = outcome.log[topics.ITEMS.name]
    return [
        *_rows(outcome.redis_rows, rows_of(sifted.kept, added, ended, items)),
        *_labels(outcome.log[topics.LABELS.name], labels),
        _sessions(outcome.log[topics.SESSIONS.name], ended),
        _dead_letters(outcome.log[topics.EVENTS_DEAD.name], sifted, unmatched),
        _lake(outcome.lake, sifted),
        _lake_labels(outcome.lake, labels),
        _counts(outcome.counts, sifted, labels, ended, unmatched),
    ]


def _rows(
    stored: Mapping[bytes, Mapping[bytes, bytes]], wanted: Mapping[View, Table]
) -> list[Area]:
    """Packed rows byte for byte, stamps aside; a key that should not be there is a difference."""
    areas, known = [], set()
    for view, table in wanted.items():
        area = Area(f"{view.join_key.removesuffix('_id')} rows", compared=len(table.keys))
        for key, row in zip(table.keys, table.rows, strict=True):
            place = entity_key(view, key)
            known.add(place)
            value = stored.get(place, {}).get(view.field, b"")
            packed = value.removeprefix(view.value_head)
            if len(packed) != view.row_bytes:
                area.differ(f"{key}: {len(packed)} bytes in Redis, expected {view.row_bytes}")
                continue
            found = unstamped(np.frombuffer(packed, view.dtype))[0]
            if found.tobytes() != row.tobytes():
                area.differ(f"{key}: {_fields(found, row)}")
        areas.append(area)
    for place in stored.keys() - known:
        areas[0].differ(f"{place!r} is in Redis and not in the log")
    return areas


def _fields(found: np.void, wanted: np.void) -> str:
    """The fields that differ, short."""
    names = [name for name in found.dtype.names or () if _differs(found[name], wanted[name])]
    shown = ((name, found[name], wanted[name]) for name in names if np.size(found[name]) < 10)
    texts = [f"{name} found {one}, the log says {two}" for name, one, two in shown]
    return "; ".join(texts) or f"differs in {', '.join(names)}"


def _differs(one: Any, two: Any) -> bool:
    return bool(np.asarray(one).tobytes() != np.asarray(two).tobytes())


def _labels(log: Mapping[int, Sequence[Record]], wanted: Mapping[Key, Label]) -> list[Area]:
    """Labels after their last change, and what a scorecard that only adds up deltas arrives at."""
    area, sums, chain = Area("labels"), Area("scorecard inputs"), Area("label changes")
    found: dict[Key, Label] = {}
    totals: dict[str, Unit] = defaultdict(Unit)
    final: Counter[Key] = Counter()
    for batch in _once(log):
        text = batch.strings
        for row, user in enumerate(batch.user_id):
            key = (text[user], text[batch.request_id[row]], text[batch.item_id[row]])
            old, new = _change(batch, row)
            chain.compared += 1
            if found.get(key, (0, 0, 0, 0))[:4] != old:
                chain.differ(f"{key}: changes {old}, was {found.get(key)}")
            found[key] = Label(*new, batch.impression_time_ms[row], batch.position[row])
            totals[key[0]] = totals[key[0]].plus(_delta(old, new))
            final[key] += new[0] == reference.FINAL
    for key, times in final.items():
        if times != 1:
            chain.differ(f"{key}: final {times} times")
    area.same(found, wanted)
    sums.same(totals, reference.units(wanted))
    return [area, chain, sums]


def _once(log: Mapping[int, Sequence[Record]]) -> Iterable[pb.LabelBatch]:
    """Records of `labels` as a reader takes them: none at or below the highest source offset."""
    highest: dict[int, int] = {}
    for records in log.values():
        for record in records:
            batch = pb.LabelBatch.FromString(record.value or b"")
            if batch.source_offset > highest.get(batch.source_partition, -1):
                highest[batch.source_partition] = batch.source_offset
                yield batch


State = tuple[int, int, int, int]


def _change(batch: pb.LabelBatch, row: int) -> tuple[State, State]:
    return (
        (
            batch.old_status[row],
            batch.old_clicked[row],
            batch.old_purchased[row],
            batch.old_value_micros[row],
        ),
        (
            batch.new_status[row],
            batch.new_clicked[row],
            batch.new_purchased[row],
            batch.new_value_micros[row],
        ),
    )


def _delta(old: State, new: State) -> Unit:
    return Unit(
        int(new[0] != 0) - int(old[0] != 0), new[1] - old[1], new[2] - old[2], new[3] - old[3]
    )


def _sessions(log: Mapping[int, Sequence[Record]], wanted: Iterable[Session]) -> Area:
    """Each once: a record may have been sent again, but only as the same bytes."""
    area = Area("sessions")
    values = {record.value or b"" for records in log.values() for record in records}
    found = Counter(_session(pb.Session.FromString(value)) for value in values)
    area.same(found, Counter(wanted))
    return area


def _session(found: pb.Session) -> Session:
    return Session(
        found.user_id,
        found.start_ms,
        found.end_ms,
        found.events,
        found.impressions,
        found.clicks,
        found.purchases,
    )


def _dead_letters(
    log: Mapping[int, Sequence[Record]], sifted: Sifted, unmatched: set[bytes]
) -> Area:
    """What was refused and what was given up; sent again or not."""
    area = Area("dead letters")
    found: set[tuple[Any, ...]] = set()
    for records in log.values():
        for record in records:
            letter = pb.DeadLetter.FromString(record.value or b"")
            if letter.code == UNMATCHED:
                found.add((UNMATCHED, pb.EventBatch.FromString(letter.original).event_id))
            elif letter.rows:
                found |= {(letter.partition, letter.offset, row) for row in letter.rows}
            else:
                found.add((letter.partition, letter.offset))
    wanted = {*sifted.refused, *sifted.broken, *((UNMATCHED, one) for one in unmatched)}
    area.compared = len(wanted)
    for letter_of in wanted ^ found:
        area.differ(f"{letter_of}: {'missing' if letter_of in wanted else 'not in the log'}")
    return area


def _lake(folder: Path, sifted: Sifted) -> Area:
    """Every row of the log, once, as it was produced."""
    area = Area("lake rows", compared=len(sifted.rows))
    table = DeltaTable(str(folder / topics.EVENTS.name)).to_pyarrow_table(
        columns=list(_LAKE_COLUMNS)
    )
    found = sorted(
        zip(*(table[name].to_pylist() for name in _LAKE_COLUMNS), strict=True),
        key=lambda row: row[:3],
    )
    wanted = sorted(map(_lake_row, sifted.rows))
    places = Counter(row[:3] for row in found)
    for place, times in places.items():
        if times > 1:
            area.differ(f"{place} is in the lake {times} times")
    missing = {row[:3] for row in wanted} ^ places.keys()
    for place in sorted(missing):
        area.differ(f"{place}: {'not in the log' if place in places else 'missing'}")
    if not area.differences:
        for one, two in zip(found, wanted, strict=True):
            if (row := _plain(one)) != two:
                area.differ(f"{two[:3]}: found {row}, the log says {two}")
    return area


def _lake_labels(folder: Path, wanted: Mapping[Key, Label]) -> Area:
    """One row per label, as it is after its last change."""
    area = Area("lake labels")
    delta = DeltaTable(str(folder / topics.LABELS.name))
    names = ("user_id", "request_id", "item_id", *_LAKE_LABEL)
    table = delta.to_pyarrow_table(columns=list(names))
    rows = list(zip(*(table[name].to_pylist() for name in names), strict=True))
    area.same({row[:3]: Label(*row[3:]) for row in rows}, wanted)
    for key, times in Counter(row[:3] for row in rows).items():
        if times > 1:
            area.differ(f"{key} is in the lake {times} times")
    return area


def _lake_row(placed: Placed) -> tuple[Any, ...]:
    event = placed.event
    return (
        *placed[:4],
        event.event_id,
        event.kind,
        event.time_ms,
        event.user,
        event.item,
        event.request,
        event.category,
        event.position,
        _comparable(event.value),
        sorted(event.attributes),
    )


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with its attributes as the reference has them."""
    attributes = sorted(json.loads(row[-1]).items()) if row[-1] else []
    return (*row[:-2], _comparable(row[-2]), attributes)


def _comparable(value: float) -> float | None:
    """The value; None for nan, which is not equal to itself."""
    return None if isnan(value) else value


def _counts(
    found: Mapping[str, int],
    sifted: Sifted,
    labels: Mapping[Key, Label],
    ended: Sequence[Session],
    unmatched: set[bytes],
) -> Area:
    """What the workers say that they have counted since the start of the log."""
    area = Area("counts")
    wanted = {
        "events": len(sifted.rows) - sifted.ticks + len(sifted.broken),
        "folded": len(sifted.kept),
        "refused": len(sifted.refused) + len(sifted.broken),
        # An id is forgotten once its event would be late anyway: then it counts as late.
        REPEATED_OR_LATE: sifted.duplicates + sifted.late,
        "ticks": sifted.ticks,
        "unmatched": len(unmatched),
        "labels_closed": len(labels),
        "sessions_closed": len(ended),
    }
    again = {REPEATED_OR_LATE: found.get("duplicates", 0) + found.get("late", 0)}
    area.same({name: {**found, **again}.get(name, 0) for name in wanted}, wanted)
    return area
