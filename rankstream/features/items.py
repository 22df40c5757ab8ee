"""What is remembered of each item and category of one partition."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Final

from rankstream.features.counters import Amounts, CounterTable, packed
from rankstream.features.deltas import CATEGORY, ITEM, Delta
from rankstream.features.rows import CATEGORY_ROW, ITEM_ATTRIBUTES, ITEM_ROW

_NONE: Final = -1


class _Stamped:
    """A counter table and, for each row, the offset of the update that changed it last."""

    def __init__(self, partition: int, table: CounterTable) -> None:
        self.partition = partition
        self.table = table
        self.changed_at: list[int] = []

    def row(self, key: str) -> int:
        row = self.table.row(key)
        if row == len(self.changed_at):
            self.changed_at.append(_NONE)
            self.table.put(row, "partition", self.partition)
        return row

    def packed(self, keys: Iterable[str]) -> list[tuple[str, bytes]]:
        found = [(key, row) for key in keys if (row := self.table.index.get(key)) is not None]
        if not found:
            return []
        index = [row for _, row in found]
        rows = self.table.rows()[index]
        rows["offset"] = [self.changed_at[row] for row in index]
        return list(zip((key for key, _ in found), packed(rows), strict=True))

    def dump(self, prefix: str) -> dict[str, bytes]:
        parts = {prefix + name: part for name, part in self.table.dump().items()}
        return {**parts, prefix + "changed_at": json.dumps(self.changed_at).encode()}

    def load(self, prefix: str, parts: Mapping[str, bytes]) -> None:
        self.table.load({name: parts[prefix + name] for name in ("keys", "rows")})
        self.changed_at = json.loads(parts[prefix + "changed_at"])


class ItemStates:
    """Items and categories whose keys belong to one partition.

    Never evicted: about 1 kB per item. The rows depend on the set of updates
    and on each item's newest metadata, not on how the two topics interleave.
    """

    def __init__(self, partition: int) -> None:
        self._items = _Stamped(partition, CounterTable(ITEM_ROW))
        self._categories = _Stamped(partition, CounterTable(CATEGORY_ROW))
        self._updated_ms: dict[str, int] = {}

    @property
    def items(self) -> int:
        """Items known."""
        return len(self._items.changed_at)

    @property
    def categories(self) -> int:
        """Categories known."""
        return len(self._categories.changed_at)

    def count(self, deltas: Iterable[Delta], *, offset: int) -> tuple[set[str], set[str]]:
        """Add one record's deltas; returns the items and the categories that they change."""
        changed: dict[int, set[str]] = {ITEM: set(), CATEGORY: set()}
        tables = {ITEM: self._items, CATEGORY: self._categories}
        items: list[tuple[int, *Amounts]] = []
        categories: list[tuple[int, *Amounts]] = []
        for delta in deltas:
            entity, key = delta[0], delta[1]
            states = tables[entity]
            row = states.row(key)
            states.changed_at[row] = offset
            changed[entity].add(key)
            (items if entity == ITEM else categories).append((row, *delta[2:]))
        self._items.table.add(items)
        self._categories.table.add(categories)
        return changed[ITEM], changed[CATEGORY]

    def describe(
        self,
        item_id: str,
        *,
        category: str,
        withdrawn: bool,
        attributes: Mapping[str, float],
        updated_ms: int,
        items_offset: int,
    ) -> bool:
        """Replace what is known of an item, unless something newer is; returns whether it did."""
        if updated_ms < self._updated_ms.get(item_id, 0):
            return False
        self._updated_ms[item_id] = updated_ms
        row, table = self._items.row(item_id), self._items.table
        table.put(row, "category", category.encode())
        table.put(row, "withdrawn", int(withdrawn))
        known = [attributes.get(name, math.nan) for name in ITEM_ATTRIBUTES]
        table.put(row, "attributes", known)
        table.put(row, "items_offset", items_offset)
        return True

    def packed_items(self, item_ids: Iterable[str]) -> list[tuple[str, bytes]]:
        """ITEM_ROW bytes of those items that are known."""
        return self._items.packed(item_ids)

    def packed_categories(self, names: Iterable[str]) -> list[tuple[str, bytes]]:
        """CATEGORY_ROW bytes of those categories that are known."""
        return self._categories.packed(names)

    def dump(self) -> dict[str, bytes]:
        """Everything, to go on from with `load`."""
        return {
            **self._items.dump("items."),
            **self._categories.dump("categories."),
            "updated": json.dumps(self._updated_ms).encode(),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        self._items.load("items.", parts)
        self._categories.load("categories.", parts)
        self._updated_ms = json.loads(parts["updated"])
