"""The two stages as a partition's loop sees them: records in, records to send and rows out.

No I/O. What a stage counts travels in its snapshot, so counts are as exact as its state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE, USER_STATE, RowEncoder
from rankstream.contracts.codec import decode_batch
from rankstream.errors import InvalidBatch, InvalidInput
from rankstream.stream import dump as dumps
from rankstream.stream.items import Changed, ItemPartition
from rankstream.stream.partition import Counts, FoldSettings, Outputs, UserPartition
from rankstream.stream.records import dead_record


@dataclass(frozen=True, slots=True)
class Send:
    """A record to append; partition None goes by the (absent) key, to any."""

    topic: str
    value: bytes
    partition: int | None = None


@dataclass
class Totals:
    """Since the start of the log, up to the committed offset.

    Stage users: events == folded + duplicates + refused + late, ticks aside; a record that cannot
    be decoded counts as one event, refused.
    Stage items: events are records of both topics.
    """

    events: int = 0
    folded: int = 0
    duplicates: int = 0
    refused: int = 0
    late: int = 0
    ticks: int = 0
    undecodable: int = 0
    unmatched: int = 0
    labels_closed: int = 0
    sessions_closed: int = 0


class Stage(Protocol):
    """State of one partition of one stage."""

    totals: Totals
    last_append_ms: int

    @property
    def name(self) -> str:
        """Name of the stage."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """What it folds, in the order of its offsets."""
        ...

    def next_offsets(self) -> tuple[int, ...]:
        """Offset to go on from, of each of `topics`."""
        ...

    def fold(self, record: Record) -> list[Send]:
        """Fold one record, whose offset is at least the next one; what to send because of it."""
        ...

    def changed_rows(self, rows_max: int) -> list[bytes]:
        """Packed HSETs of some of the rows changed and not yet taken; none are left if empty."""
        ...

    def forget_changes(self) -> None:
        """Take all changed rows as stored."""
        ...

    def folded_times_ms(self) -> list[int]:
        """Newest event time of each record folded since the last call; none in stage items."""
        ...

    def newest_ms(self) -> int:
        """Newest event time seen; 0: none, or of no meaning here."""
        ...

    def watermark_ms(self) -> int:
        """The watermark; 0: none."""
        ...

    def sizes(self) -> dict[str, int]:
        """State by part."""
        ...

    def dump(self) -> bytes:
        """The whole state."""
        ...

    def load(self, snapshot: bytes) -> None:
        """Replace the state. Raises: InvalidArtifact."""
        ...


def _pack(partition: int, name: str, totals: Totals, last_append_ms: int, state: bytes) -> bytes:
    counted = json.dumps({"totals": vars(totals), "last_append_ms": last_append_ms}).encode()
    return dumps.pack({"stage": name, "partition": partition}, {"counts": counted, "state": state})


def _unpack(partition: int, name: str, snapshot: bytes) -> tuple[Totals, int, bytes]:
    parts = dumps.unpack(snapshot, {"stage": name, "partition": partition})
    counted = json.loads(parts["counts"])
    known = {field.name for field in fields(Totals)}
    totals = {key: count for key, count in counted["totals"].items() if key in known}
    return Totals(**totals), counted["last_append_ms"], parts["state"]


class UserStage:
    """Stage 1: `events` -> user rows, labels, sessions, feature updates, dead letters."""

    name = "users"
    topics = (topics.EVENTS.name,)

    def __init__(self, partition: int, partitions: int, settings: FoldSettings) -> None:
        self._partition = partition
        self._state = UserPartition(partition, partitions, settings)
        self._changed: set[str] = set()
        self._folded_times_ms: list[int] = []
        self._rows = RowEncoder(USER_STATE)
        self.totals = Totals()
        self.last_append_ms = 0

    def next_offsets(self) -> tuple[int, ...]:
        return (self._state.offset + 1,)

    def fold(self, record: Record) -> list[Send]:
        self.last_append_ms = max(self.last_append_ms, record.timestamp_ms)
        value = record.value or b""
        try:
            columns = decode_batch(value)
        except InvalidBatch as error:
            self._state.skip(record.offset)
            self.totals.undecodable += 1
            self.totals.events += 1
            self.totals.refused += 1
            return [Send(topics.EVENTS_DEAD.name, _dead(record, error))]
        outputs = self._state.fold(
            columns,
            offset=record.offset,
            append_time_ms=record.timestamp_ms,
            original=value,
            original_key=record.key,
        )
        self._changed |= outputs.changed_users
        if outputs.counts.folded:
            self._folded_times_ms.append(int(columns.event_time_ms.max()))
        self._count(outputs.counts)
        return self._sends(outputs)

    def _count(self, counts: Counts) -> None:
        totals = self.totals
        totals.events += counts.events - counts.ticks
        totals.folded += counts.folded
        totals.duplicates += counts.duplicates
        totals.refused += counts.refused
        totals.late += counts.late
        totals.ticks += counts.ticks
        totals.unmatched += counts.unmatched
        totals.labels_closed += counts.labels_closed
        totals.sessions_closed += counts.sessions_closed

    def _sends(self, outputs: Outputs) -> list[Send]:
        own = self._partition
        sends = [
            Send(topics.FEATURE_UPDATES.name, value, target)
            for target, value in outputs.updates.items()
        ]
        if outputs.label_batch is not None:
            sends.append(Send(topics.LABELS.name, outputs.label_batch, own))
        sends += [Send(topics.SESSIONS.name, value, own) for value in outputs.sessions]
        dead = [outputs.dead] if outputs.dead is not None else []
        sends += [Send(topics.EVENTS_DEAD.name, value) for value in (*dead, *outputs.unmatched)]
        return sends

    def changed_rows(self, rows_max: int) -> list[bytes]:
        users = _taken(self._changed, rows_max)
        return [self._rows.hset(*row) for row in self._state.rows(users)]

    def forget_changes(self) -> None:
        self._changed.clear()
        self._folded_times_ms.clear()

    def folded_times_ms(self) -> list[int]:
        taken, self._folded_times_ms = self._folded_times_ms, []
        return taken

    def newest_ms(self) -> int:
        return self._state.newest_ms

    def watermark_ms(self) -> int:
        return self._state.watermark_ms

    def sizes(self) -> dict[str, int]:
        return self._state.sizes()

    def dump(self) -> bytes:
        state = self._state.dump()
        return _pack(self._partition, self.name, self.totals, self.last_append_ms, state)

    def load(self, snapshot: bytes) -> None:
        totals, last_append_ms, state = _unpack(self._partition, self.name, snapshot)
        self._state.load(state)
        self.totals, self.last_append_ms = totals, last_append_ms


class ItemStage:
    """Stage 2: `feature-updates` and `items` -> item and category rows."""

    name = "items"
    topics = (topics.FEATURE_UPDATES.name, topics.ITEMS.name)

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._state = ItemPartition(partition)
        self._items: set[str] = set()
        self._categories: set[str] = set()
        self._item_rows = RowEncoder(ITEM_STATE)
        self._category_rows = RowEncoder(CATEGORY_STATE)
        self.totals = Totals()
        self.last_append_ms = 0

    def next_offsets(self) -> tuple[int, ...]:
        return (self._state.offset + 1, self._state.items_offset + 1)

    def fold(self, record: Record) -> list[Send]:
        self.last_append_ms = max(self.last_append_ms, record.timestamp_ms)
        self.totals.events += 1
        try:
            changed = self._folded(record)
        except InvalidInput as error:
            self.totals.refused += 1
            return [Send(topics.EVENTS_DEAD.name, _dead(record, error))]
        self._items |= changed.items
        self._categories |= changed.categories
        if changed.duplicate:
            self.totals.duplicates += 1
        else:
            self.totals.folded += 1
        return []

    def _folded(self, record: Record) -> Changed:
        value = record.value or b""
        if record.topic == topics.ITEMS.name:
            return self._state.fold_item(value, offset=record.offset)
        return self._state.fold_updates(value, offset=record.offset)

    def changed_rows(self, rows_max: int) -> list[bytes]:
        items = _taken(self._items, rows_max)
        categories = _taken(self._categories, rows_max - len(items))
        return [
            *(self._item_rows.hset(*row) for row in self._state.item_rows(items)),
            *(self._category_rows.hset(*row) for row in self._state.category_rows(categories)),
        ]

    def forget_changes(self) -> None:
        self._items.clear()
        self._categories.clear()

    def folded_times_ms(self) -> list[int]:
        return []

    def newest_ms(self) -> int:
        return 0

    def watermark_ms(self) -> int:
        return 0

    def sizes(self) -> dict[str, int]:
        return self._state.sizes()

    def dump(self) -> bytes:
        state = self._state.dump()
        return _pack(self._partition, self.name, self.totals, self.last_append_ms, state)

    def load(self, snapshot: bytes) -> None:
        totals, last_append_ms, state = _unpack(self._partition, self.name, snapshot)
        self._state.load(state)
        self.totals, self.last_append_ms = totals, last_append_ms


def _taken(changed: set[str], most: int) -> list[str]:
    if len(changed) <= most:
        taken = sorted(changed)
        changed.clear()
        return taken
    return [changed.pop() for _ in range(most)]


def _dead(record: Record, error: InvalidInput) -> bytes:
    return dead_record(
        code=error.code,
        reason=str(error),
        original=record.value or b"",
        original_key=record.key,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        append_time_ms=record.timestamp_ms,
    )


def summed(totals: Mapping[int, Totals]) -> Totals:
    """Totals of all partitions together."""
    return Totals(
        **{
            field.name: sum(getattr(one, field.name) for one in totals.values())
            for field in fields(Totals)
        }
    )
