"""The two stages as a partition's loop sees them: records in, records to send and rows out.

No I/O. What a stage counts travels in its snapshot, so counts are as exact as its state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

from rankstream import topics
from rankstream.adapters.redis_rows import (
    CATEGORY_STATE,
    ITEM_STATE,
    LOCATION_STATE,
    QUERY_STATE,
    USER_STATE,
    RowEncoder,
)
from rankstream.contracts.record import Record
from rankstream.features.deltas import Entity
from rankstream.features.touched import Touched
from rankstream.stream.dump import Piece
from rankstream.stream.items import ItemPartition
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


@dataclass(frozen=True, slots=True)
class Folded:
    """What a run of records has to send: to the journal first, then the rest."""

    journal: bytes | None
    sends: list[Send]


class Stage(Protocol):
    """State of one partition of one stage."""

    totals: Totals
    last_append_ms: int
    journal_next: int  # offset of the next record of the journal, topic `labels`
    beat: float  # where in a linger it folds, in [0, 1)

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

    def positions(self) -> tuple[int, ...]:
        """What is committed with the rows: `next_offsets`, then the journal's if there is one."""
        ...

    def fold(self, records: Sequence[Record]) -> Folded:
        """Fold a run of records of one topic, whose offsets grow from the next one on."""
        ...

    def changed_rows(self, rows_max: int) -> list[bytes]:
        """Packed commands for some of the rows changed and not yet taken; none left if empty."""
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

    def dump(self) -> list[Piece]:
        """The whole state, in pieces that are good until the next fold."""
        ...

    def load(self, snapshot: bytes) -> None:
        """Replace the state. Raises: InvalidArtifact."""
        ...


def _counts(stage: Stage) -> bytes:
    counted = {
        "totals": vars(stage.totals),
        "last_append_ms": stage.last_append_ms,
        "journal_next": stage.journal_next,
    }
    return json.dumps(counted).encode()


def _count_on(stage: Stage, counts: bytes) -> None:
    counted = json.loads(counts)
    known = {field.name for field in fields(Totals)}
    totals = {name: count for name, count in counted["totals"].items() if name in known}
    stage.totals = Totals(**totals)
    stage.last_append_ms = counted["last_append_ms"]
    stage.journal_next = counted["journal_next"]


class UserStage:
    """Stage 1: `events` -> user rows, labels, sessions, feature updates, dead letters."""

    name = "users"
    beat = 0.0
    topics = (topics.EVENTS.name,)

    def __init__(self, partition: int, partitions: int, settings: FoldSettings) -> None:
        self._partition = partition
        self._state = UserPartition(partition, partitions, settings)
        self._users = Touched()
        self._folded_times_ms: list[int] = []
        self._rows = RowEncoder(USER_STATE)
        self.totals = Totals()
        self.last_append_ms = 0
        self.journal_next = 0

    def next_offsets(self) -> tuple[int, ...]:
        return (self._state.offset + 1,)

    def positions(self) -> tuple[int, ...]:
        return (self._state.offset + 1, self.journal_next)

    def fold(self, records: Sequence[Record]) -> Folded:
        self.last_append_ms = max(self.last_append_ms, *(r.timestamp_ms for r in records))
        outputs = self._state.fold(records)
        self._users.follow(outputs.users)
        self._folded_times_ms += outputs.newest_times_ms
        self._count(outputs.counts)
        return Folded(outputs.label_batch, self._sends(outputs))

    def _count(self, counts: Counts) -> None:
        totals = self.totals
        totals.events += counts.events - counts.ticks
        totals.folded += counts.folded
        totals.duplicates += counts.duplicates
        totals.refused += counts.refused
        totals.late += counts.late
        totals.ticks += counts.ticks
        totals.undecodable += counts.undecodable
        totals.unmatched += counts.unmatched
        totals.labels_closed += counts.labels_closed
        totals.sessions_closed += counts.sessions_closed

    def _sends(self, outputs: Outputs) -> list[Send]:
        sends = [
            Send(topics.FEATURE_UPDATES.name, value, target)
            for target, value in outputs.updates.items()
        ]
        sends += [Send(topics.SESSIONS.name, value, self._partition) for value in outputs.sessions]
        letters = (*outputs.dead, *outputs.unmatched)
        return [*sends, *(Send(topics.EVENTS_DEAD.name, letter) for letter in letters)]

    def changed_rows(self, rows_max: int) -> list[bytes]:
        users = _taken(self._users.changed, rows_max)
        expired = _taken(self._users.expired, rows_max - len(users))
        return [
            *(self._rows.hset(*row) for row in self._state.rows(users)),
            *(self._rows.hdel(user) for user in expired),
        ]

    def forget_changes(self) -> None:
        self._users.clear()
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

    def dump(self) -> list[Piece]:
        return self._state.dump(_counts(self))

    def load(self, snapshot: bytes) -> None:
        _count_on(self, self._state.load(snapshot))


_VIEWS: Final = {
    Entity.ITEM: ITEM_STATE,
    Entity.CATEGORY: CATEGORY_STATE,
    Entity.QUERY: QUERY_STATE,
    Entity.LOCATION: LOCATION_STATE,
}


class ItemStage:
    """Stage 2: `feature-updates` and `items` -> rows of items, categories and contexts."""

    name = "items"
    # Half a linger behind stage 1, whose updates are there by then.
    beat = 0.5
    topics = (topics.FEATURE_UPDATES.name, topics.ITEMS.name)

    def __init__(self, partition: int, ttl_ms: int) -> None:
        self._partition = partition
        self._state = ItemPartition(partition, ttl_ms)
        self._touched = {entity: Touched() for entity in Entity}
        self._rows = {entity: RowEncoder(view) for entity, view in _VIEWS.items()}
        self.totals = Totals()
        self.last_append_ms = 0
        self.journal_next = 0

    def next_offsets(self) -> tuple[int, ...]:
        return (self._state.offset + 1, self._state.items_offset + 1)

    def positions(self) -> tuple[int, ...]:
        return self.next_offsets()

    def fold(self, records: Sequence[Record]) -> Folded:
        self.last_append_ms = max(self.last_append_ms, *(r.timestamp_ms for r in records))
        of_items = records[0].topic == topics.ITEMS.name
        fold = self._state.fold_items if of_items else self._state.fold_updates
        changed = fold(records)
        for entity, touched in changed.touched.items():
            self._touched[entity].follow(touched)
        self.totals.events += len(records)
        self.totals.refused += len(changed.refused)
        self.totals.duplicates += changed.duplicates
        self.totals.folded += len(records) - len(changed.refused) - changed.duplicates
        dead = (dead_record(records[place], error) for place, error in changed.refused.items())
        return Folded(None, [Send(topics.EVENTS_DEAD.name, letter) for letter in dead])

    def changed_rows(self, rows_max: int) -> list[bytes]:
        commands: list[bytes] = []
        for entity, touched in self._touched.items():
            encoder = self._rows[entity]
            keys = _taken(touched.changed, rows_max - len(commands))
            commands += [encoder.hset(*row) for row in self._state.rows(entity, keys)]
            keys = _taken(touched.expired, rows_max - len(commands))
            commands += [encoder.hdel(key) for key in keys]
        return commands

    def forget_changes(self) -> None:
        for touched in self._touched.values():
            touched.clear()

    def folded_times_ms(self) -> list[int]:
        return []

    def newest_ms(self) -> int:
        return 0

    def watermark_ms(self) -> int:
        return 0

    def sizes(self) -> dict[str, int]:
        return self._state.sizes()

    def dump(self) -> list[Piece]:
        return self._state.dump(_counts(self))

    def load(self, snapshot: bytes) -> None:
        _count_on(self, self._state.load(snapshot))


def _taken(changed: set[str], most: int) -> list[str]:
    if len(changed) <= most:
        taken = sorted(changed)
        changed.clear()
        return taken
    return [changed.pop() for _ in range(most)]


def summed(totals: Mapping[int, Totals]) -> Totals:
    """Totals of all partitions together."""
    return Totals(
        **{
            field.name: sum(getattr(one, field.name) for one in totals.values())
            for field in fields(Totals)
        }
    )
