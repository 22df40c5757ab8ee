"""What is remembered of each item, category, query and location of one partition."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.features.attributes import ITEM_ATTRIBUTES
from rankstream.features.counters import CounterTable, packed
from rankstream.features.deltas import Deltas, Entity, distinct
from rankstream.features.expiry import expiry_ms
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    Rows,
    empty_rows,
    raw,
)
from rankstream.features.touched import Touched

Ints = npt.NDArray[np.int64]

ROWS: Final = {
    Entity.ITEM: ITEM_ROW,
    Entity.CATEGORY: CATEGORY_ROW,
    Entity.QUERY: CONTEXT_ROW,
    Entity.LOCATION: CONTEXT_ROW,
}


class _Stamped:
    """A counter table and, for each row, the offset of the update that changed it last."""

    def __init__(self, partition: int, dtype: np.dtype[np.void]) -> None:
        self._partition = partition
        self._dtype = dtype
        self._changed_at = np.zeros(0, np.int64)
        self.counters = CounterTable()

    def rows(self, keys: Iterable[str]) -> Ints:
        """Row of each key, made if it is new."""
        row = self.counters.row
        rows = np.array([row(key) for key in keys], np.int64)
        more = self.counters.capacity - len(self._changed_at)
        if more:
            self._changed_at = np.concatenate([self._changed_at, np.full(more, -1)])
        return rows

    def count(self, deltas: Deltas, offset: Ints) -> set[str]:
        """Add deltas, each of the update at an offset; the keys that they change."""
        strings = deltas.strings
        numbers = distinct(len(strings), deltas.key)
        keys = [strings[number] for number in numbers.tolist()]
        row_of = np.zeros(len(strings), np.int64)
        row_of[numbers] = self.rows(keys)
        row = row_of[deltas.key]
        self.counters.add(row, deltas.time_ms, deltas.amounts)
        self._changed_at[row] = offset
        return set(keys)

    def expire(self, expiry_ms: int, kept: Container[str]) -> set[str]:
        """Forget keys whose newest event is before then, but those in `kept`; which they were."""
        index = self.counters.index
        names = list(index)
        rows = np.fromiter(index.values(), np.int64, len(index))
        old = np.flatnonzero(self.counters.last_ms(rows) < expiry_ms).tolist()
        keys = [names[place] for place in old if names[place] not in kept]
        self._changed_at[self.counters.forget(keys)] = -1
        return set(keys)

    def packed(self, keys: Iterable[str]) -> tuple[list[str], Rows]:
        """Those of the keys that are known, and their rows."""
        index = self.counters.index
        known = [key for key in keys if key in index]
        if not known:
            return [], empty_rows(0, self._dtype)
        row = [index[key] for key in known]
        rows = empty_rows(len(known), self._dtype)
        self.counters.fill(rows, row)
        rows["partition"] = self._partition
        rows["offset"] = self._changed_at[row]
        return known, rows

    def dump(self, prefix: str) -> dict[str, bytes | memoryview]:
        changed_at = self._changed_at[self.counters.rows()]
        parts = {**self.counters.dump(), "changed_at": raw(changed_at)}
        return {prefix + name: part for name, part in parts.items()}

    def load(self, prefix: str, parts: Mapping[str, bytes]) -> None:
        own = {k.removeprefix(prefix): v for k, v in parts.items() if k.startswith(prefix)}
        self.counters.load(own)
        self._changed_at = np.frombuffer(own["changed_at"], np.int64).copy()
        self.rows(())


class _Known(NamedTuple):
    """What topic `items` says of an item."""

    updated_ms: int
    category: str
    withdrawn: bool
    attributes: list[float]  # of ITEM_ATTRIBUTES; nan: unknown
    items_offset: int


class ItemStates:
    """Everything whose key belongs to one partition: about 0.9 kB each.

    The rows depend on the set of updates and on each item's newest metadata, not on how the two
    topics interleave. What has no event for the TTL is forgotten, when an update of another shows
    that this time has passed; items that topic `items` describes stay.
    """

    def __init__(self, partition: int, ttl_ms: int) -> None:
        self._ttl_ms = ttl_ms
        self._newest_ms = 0  # event time
        self._expired_ms = 0  # up to when keys were forgotten
        self._states = {entity: _Stamped(partition, dtype) for entity, dtype in ROWS.items()}
        self._known: dict[str, _Known] = {}

    def known(self, entity: Entity) -> int:
        """How many are known."""
        return len(self._states[entity].counters)

    def count(self, deltas: Deltas, offset: Ints) -> dict[Entity, Touched]:
        """Add deltas, each of the update at an offset; the keys that this touches.

        What has had no event for the TTL is forgotten behind the update that says so.
        """
        touched = {entity: Touched() for entity in Entity}
        if not len(deltas):
            return touched
        first = np.flatnonzero(np.diff(offset, prepend=-1))  # of each update
        newest = np.maximum.accumulate(np.maximum.reduceat(deltas.time_ms, first))
        expiry = expiry_ms(np.maximum(newest, self._newest_ms), self._ttl_ms)
        self._newest_ms = max(self._newest_ms, int(newest[-1]))
        ends = np.append(first[1:], len(deltas))
        last = np.flatnonzero(np.diff(expiry, prepend=self._expired_ms) > 0)
        start = 0
        for end, moment_ms in zip(
            [*ends[last].tolist(), len(deltas)], [*expiry[last].tolist(), 0], strict=True
        ):
            self._count(deltas.take(slice(start, end)), offset[start:end], touched)
            if moment_ms > self._expired_ms:
                self._expired_ms = moment_ms
                for entity, states in self._states.items():
                    kept = self._known if entity == Entity.ITEM else ()
                    touched[entity].expire(states.expire(moment_ms, kept))
            start = end
        return touched

    def _count(self, deltas: Deltas, offset: Ints, touched: Mapping[Entity, Touched]) -> None:
        for entity, states in self._states.items():
            own = np.flatnonzero(deltas.entity == entity)
            if len(own):
                touched[entity].change(states.count(deltas.take(own), offset[own]))

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
        known = self._known.get(item_id)
        if known is not None and updated_ms < known.updated_ms:
            return False
        numbers = [attributes.get(name, math.nan) for name in ITEM_ATTRIBUTES]
        self._known[item_id] = _Known(updated_ms, category, withdrawn, numbers, items_offset)
        self._states[Entity.ITEM].rows((item_id,))
        return True

    def packed(self, entity: Entity, keys: Iterable[str]) -> list[tuple[str, bytes]]:
        """The rows, as ROWS has them, of those keys that are known."""
        found, rows = self._states[entity].packed(keys)
        if entity == Entity.ITEM:
            self._describe(found, rows)
        return list(zip(found, packed(rows), strict=True))

    def _describe(self, item_ids: Iterable[str], rows: Rows) -> None:
        for place, item_id in enumerate(item_ids):
            known = self._known.get(item_id)
            if known is not None:
                rows["category"][place] = known.category.encode()
                rows["withdrawn"][place] = known.withdrawn
                rows["attributes"][place] = known.attributes
                rows["items_offset"][place] = known.items_offset

    def dump(self) -> dict[str, bytes | memoryview]:
        """Everything, to go on from with `load`; good until the next change."""
        parts: dict[str, bytes | memoryview] = {}
        for entity, states in self._states.items():
            parts |= states.dump(f"{entity.name}.")
        return {
            **parts,
            "known": json.dumps(self._known).encode(),
            "times": json.dumps([self._newest_ms, self._expired_ms]).encode(),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        for entity, states in self._states.items():
            states.load(f"{entity.name}.", parts)
        self._newest_ms, self._expired_ms = json.loads(parts["times"])
        self._known = {name: _Known(*known) for name, known in json.loads(parts["known"]).items()}
