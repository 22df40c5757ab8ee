"""Stage 2: fold `feature-updates` and `items` into item and category rows.

No I/O and no clock. The rows are a function of the prefixes of the two topics
that were folded, and not of how they interleave.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rankstream.contracts.high_water import HighWater
from rankstream.contracts.items import decode_item
from rankstream.features.expiry import STATE_TTL_MS
from rankstream.features.items import ItemStates
from rankstream.stream import dump as dumps
from rankstream.stream import records

DUMP_VERSION: Final = 2
_NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Changed:
    """Keys whose rows one record changed; `duplicate` if it was folded before, or was outdated.

    `expired_items` and `expired_categories` were forgotten after that.
    """

    items: frozenset[str] | set[str] = _NOTHING
    categories: frozenset[str] | set[str] = _NOTHING
    expired_items: frozenset[str] | set[str] = _NOTHING
    expired_categories: frozenset[str] | set[str] = _NOTHING
    duplicate: bool = False


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

    def fold_updates(self, record: bytes, *, offset: int) -> Changed:
        """Fold one record of `feature-updates`. Offsets must grow.

        Raises: InvalidBatch if it is no such record; it is passed over then.
        """
        assert offset > self._offset, (self._partition, offset, self._offset)
        self._offset = offset
        updates = records.decode_updates(record)
        if not self._folded.advance(updates.source_partition, updates.source_offset):
            return Changed(duplicate=True)
        items, categories = self._states.count(updates.deltas, offset=offset)
        expired_items, expired_categories = self._states.expire()
        return Changed(
            items - expired_items,
            categories - expired_categories,
            expired_items,
            expired_categories,
        )

    def fold_item(
        self, record: bytes, *, offset: int, append_time_ms: int | None = None
    ) -> Changed:
        """Fold one record of `items`. Offsets must grow.

        Raises: InvalidEvent if it breaks the contract; it is passed over then.
        """
        assert offset > self._items_offset, (self._partition, offset, self._items_offset)
        self._items_offset = offset
        item = decode_item(record, append_time_ms=append_time_ms)
        taken = self._states.describe(
            item.item_id,
            category=item.category,
            withdrawn=item.withdrawn,
            attributes=item.attributes,
            updated_ms=item.updated_ms,
            items_offset=offset,
        )
        return Changed(items={item.item_id}) if taken else Changed(duplicate=True)

    def item_rows(self, item_ids: Iterable[str]) -> list[tuple[str, bytes]]:
        """ITEM_ROW bytes of those items that are known, stamped."""
        return self._states.packed_items(item_ids)

    def category_rows(self, categories: Iterable[str]) -> list[tuple[str, bytes]]:
        """CATEGORY_ROW bytes of those categories that are known, stamped."""
        return self._states.packed_categories(categories)

    def dump(self) -> bytes:
        """The whole state, to go on from with `load`."""
        state = {
            "offset": self._offset,
            "items_offset": self._items_offset,
            "folded": sorted(self._folded.offsets().items()),
        }
        parts = {"state": json.dumps(state).encode(), **self._states.dump()}
        return dumps.pack(self._meta(), parts)

    def load(self, dump: bytes) -> None:
        """Replace the state by a dumped one.

        Raises: InvalidArtifact if it is damaged, or of another version or
            partition; nothing is replaced then.
        """
        parts = dumps.unpack(dump, self._meta())
        state = json.loads(parts["state"])
        self._offset, self._items_offset = state["offset"], state["items_offset"]
        self._folded = HighWater(dict(state["folded"]))
        self._states.load(parts)

    def _meta(self) -> dict[str, int | str]:
        return {
            "state": "items",
            "version": DUMP_VERSION,
            "partition": self._partition,
            "ttl_ms": self._ttl_ms,
        }

    def sizes(self) -> dict[str, int]:
        """State by part, for gauges."""
        return {"items": self._states.items, "categories": self._states.categories}
