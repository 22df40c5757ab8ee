"""Stage 2: fold `feature-updates` and `items` into rows of items, categories and contexts.

No I/O and no clock. The rows are a function of the prefixes of the two topics
that were folded, and not of how they interleave.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rankstream.contracts.high_water import HighWater
from rankstream.contracts.items import decode_item, deleted_item
from rankstream.contracts.record import Record
from rankstream.errors import InvalidInput
from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.deltas import Entity
from rankstream.features.expiry import STATE_TTL_MS
from rankstream.features.items import ItemStates
from rankstream.features.touched import Touched
from rankstream.stream import dump as dumps
from rankstream.stream.records import decode_updates

DUMP_VERSION: Final = 4


@dataclass(frozen=True)
class Changed:
    """What a run of records changed.

    `duplicates` were folded before, or are outdated; `refused` are passed over: why, by their
    place in the run.
    """

    touched: Mapping[Entity, Touched]
    duplicates: int
    refused: Mapping[int, InvalidInput]


class ItemPartition:
    """State of one partition of `feature-updates` and `items`."""

    def __init__(self, partition: int, ttl_ms: int = STATE_TTL_MS) -> None:
        self._partition = partition
        self._ttl_ms = ttl_ms
        self._offset = -1
        self._items_offset = -1
        self._folded = HighWater()
        self._states = ItemStates(partition, ttl_ms)

    @property
    def offset(self) -> int:
        """Offset of the last record of `feature-updates` taken; -1: none."""
        return self._offset

    @property
    def items_offset(self) -> int:
        """Offset of the last record of `items` taken; -1: none."""
        return self._items_offset

    def fold_updates(self, records: Sequence[Record]) -> Changed:
        """Fold a run of records of `feature-updates`, whose offsets grow.

        The state after it is that of folding them one by one.
        """
        self._offset = _followed(self._offset, records)
        updates = decode_updates([record.value or b"" for record in records])
        new = [
            place not in updates.invalid and self._folded.advance(*source)
            for place, source in enumerate(updates.source)
        ]
        deltas, of = updates.deltas, updates.record
        if not all(new):
            rows = np.flatnonzero(np.array(new)[of])
            deltas, of = deltas.take(rows), of[rows]
        offsets = np.array([record.offset for record in records], np.int64)
        touched = self._states.count(deltas, offsets[of])
        duplicates = len(records) - sum(new) - len(updates.invalid)
        return Changed(touched, duplicates, updates.invalid)

    def fold_items(self, records: Sequence[Record]) -> Changed:
        """Fold a run of records of `items`, whose offsets grow; a tombstone withdraws its item."""
        self._items_offset = _followed(self._items_offset, records)
        changed, refused, duplicates = Touched(), dict[int, InvalidInput](), 0
        for place, record in enumerate(records):
            at_ms, value = record.timestamp_ms, record.value
            if value is None:
                value = deleted_item(record.key, at_ms)
            try:
                item = decode_item(value, append_time_ms=at_ms)
            except InvalidInput as error:
                refused[place] = error
                continue
            taken = self._states.describe(
                item.item_id,
                category=item.category,
                withdrawn=item.withdrawn,
                attributes=item.attributes,
                updated_ms=item.updated_ms,
                items_offset=record.offset,
            )
            if taken:
                changed.change({item.item_id})
            else:
                duplicates += 1
        return Changed({Entity.ITEM: changed}, duplicates, refused)

    def rows(self, entity: Entity, keys: Iterable[str]) -> list[tuple[str, bytes]]:
        """Row bytes, as `features.items.ROWS`, of those keys that are known, stamped."""
        return self._states.packed(entity, keys)

    def dump(self, note: bytes = b"") -> list[dumps.Piece]:
        """The whole state and a note of the caller's, in pieces: end to end they are for `load`.

        They are good until the next fold.
        """
        state = {
            "offset": self._offset,
            "items_offset": self._items_offset,
            "folded": sorted(self._folded.offsets().items()),
        }
        parts = {"note": note, "state": json.dumps(state).encode(), **self._states.dump()}
        return dumps.pack(self._meta(), parts)

    def load(self, dump: bytes) -> bytes:
        """Replace the state by a dumped one; the note that was dumped with it.

        Raises: InvalidArtifact if it is damaged, or of another version or
            partition; nothing is replaced then.
        """
        parts = dumps.unpack(dump, self._meta())
        state = json.loads(parts["state"])
        self._offset, self._items_offset = state["offset"], state["items_offset"]
        self._folded = HighWater(dict(state["folded"]))
        self._states.load(parts)
        return parts["note"]

    def _meta(self) -> dict[str, int | str]:
        return {
            "state": "items",
            "version": DUMP_VERSION,
            "attributes": ",".join(ITEM_ATTRIBUTES),
            "partition": self._partition,
            "ttl_ms": self._ttl_ms,
        }

    def sizes(self) -> dict[str, int]:
        """State by part, for gauges."""
        names = {
            Entity.ITEM: "items",
            Entity.CATEGORY: "categories",
            Entity.QUERY: "queries",
            Entity.LOCATION: "locations",
        }
        return {name: self._states.known(entity) for entity, name in names.items()}


def _followed(offset: int, records: Iterable[Record]) -> int:
    """The offset of the last of some records, which grow from `offset` on."""
    for record in records:
        assert record.offset > offset, (record.topic, record.partition, record.offset, offset)
        offset = record.offset
    return offset
