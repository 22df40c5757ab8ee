"""Rows of items, categories and contexts kept in this process, read anew as they grow old.

Every request asks for the same popular items: most of their rows are those of the request before.
While the store tells of changes, only what has changed is read again; while it does not, everything
grows old. A row in use is read again before it is too old, off the answer path; what is missing or
too old is waited for. No row is copied: a request takes its places, which hold until something is
put.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.redis_rows import CATEGORY_STATE, ITEM_STATE
from rankstream.contracts.ids import id64
from rankstream.errors import DependencyUnavailable, SpecMismatch
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, Rows, empty_rows
from rankstream.ports import FeatureStore

Places = npt.NDArray[np.intp]
Key = TypeVar("Key", bound=Hashable)
Read: TypeAlias = Callable[[Any], Awaitable[Rows]]  # of the rows of some ids
NOWHERE: Final = 0  # the place of a row of nothing known
_NEVER: Final = -np.inf
# The rows of a query and of a location, kept together.
_BOTH: Final = np.dtype([("rows", CONTEXT_ROW, (2,))])


class RowTable(Generic[Key]):
    """The rows of one view read last, at most `rows_max`; the oldest place is given away first."""

    def __init__(self, empty: Rows, *, rows_max: int) -> None:
        """`empty`: the row of nothing known, shape (1,)."""
        # Memory is taken as places are.
        self.rows: Rows = np.zeros(1 + rows_max, empty.dtype)
        self.rows[NOWHERE] = empty[0]
        # Since when a row may be out of date: inf while it is not.
        self.since_s = np.full(1 + rows_max, _NEVER)
        # When its reading began, when it was last asked for again and last told to have changed.
        self._read_s = np.full(1 + rows_max, _NEVER)
        self._asked_s = np.full(1 + rows_max, _NEVER)
        self._changed_s = np.full(1 + rows_max, _NEVER)
        self._tracked_s = np.inf  # since when changes are told
        self._place_of: dict[Key, int] = {}
        self._ids: list[Key | None] = [None] * (1 + rows_max)
        self._next = 0

    def places(self, ids: Sequence[Key]) -> Places:
        """Where the row of each is, NOWHERE for one that is not kept, shape (n,)."""
        found = map(self._place_of.get, ids, repeat(NOWHERE))
        return np.fromiter(found, np.intp, len(ids))

    def put(self, ids: Sequence[Key], rows: Rows, read_s: float) -> Places:
        """Keep rows whose reading began at a time, unless a later reading is kept; their places."""
        places = np.array([self._place(entity_id) for entity_id in ids], np.intp)
        newer = np.flatnonzero(self._read_s[places] <= read_s)
        at = places[newer]
        self.rows[at] = rows[newer]
        self._read_s[at] = read_s
        if read_s < self._tracked_s:
            self.since_s[at] = read_s
        else:
            # What changed while it was read may not be in it.
            changed_s = self._changed_s[at]
            self.since_s[at] = np.where(changed_s >= read_s, changed_s, np.inf)
        return places

    def due(self, places: Places, now_s: float, age_s: float) -> tuple[Places, Places]:
        """Which of the rows are too old to be used, and which are to be read soon, once."""
        since_s = self.since_s[places]
        late = since_s <= now_s - age_s
        half_s = now_s - age_s / 2
        soon = np.flatnonzero((since_s <= half_s) & (self._asked_s[places] <= half_s) & ~late)
        self._asked_s[places[soon]] = now_s
        return np.flatnonzero(late), soon

    def changed(self, ids: Sequence[Key] | None, now_s: float) -> None:
        """The store has told that it has other rows of these by now; None: maybe of all."""
        if ids is None:
            places: Places | slice = slice(1, None)
        else:
            places = self.places(ids)
            places = places[places != NOWHERE]
        self._changed_s[places] = now_s
        self.since_s[places] = np.minimum(self.since_s[places], now_s)

    def track(self, tracked_s: float) -> None:
        """Every change from a time on is told; inf: none is, what is kept grows old again."""
        self._tracked_s = tracked_s
        if tracked_s == np.inf:
            self.since_s = np.minimum(self.since_s, self._read_s)

    def _place(self, entity_id: Key) -> int:
        place = self._place_of.get(entity_id)
        if place is not None:
            return place
        self._next = self._next % (len(self._ids) - 1) + 1
        place = self._next
        before = self._ids[place]
        if before is not None:
            del self._place_of[before]
        self._ids[place], self._place_of[entity_id] = entity_id, place
        for times in (self.since_s, self._read_s, self._asked_s, self._changed_s):
            times[place] = _NEVER
        return place


class ItemTable(RowTable[str]):
    """Rows of items, and the number of each one's category among `names`, "" being 0."""

    def __init__(self, *, rows_max: int) -> None:
        super().__init__(empty_rows(1, ITEM_ROW), rows_max=rows_max)
        self.category = np.zeros(1 + rows_max, np.intp)
        self.hash = np.zeros(1 + rows_max, np.uint64)  # id64 of each item
        # Both grow with the categories that have been seen.
        self.names = [""]
        self.hashes = [0]  # id64 of each name, 0 of ""
        self._number_of = {b"": 0}

    def put(self, ids: Sequence[str], rows: Rows, read_s: float) -> Places:
        places = super().put(ids, rows, read_s)
        names = self.rows["category"][places].tolist()
        self.category[places] = [self._number(name) for name in names]
        self.hash[places] = [id64(item_id) for item_id in ids]
        return places

    def _number(self, name: bytes) -> int:
        number = self._number_of.get(name)
        if number is None:
            number = self._number_of[name] = len(self.names)
            text = name.decode(errors="replace")
            self.names.append(text)
            self.hashes.append(id64(text))
        return number


@dataclass(frozen=True, eq=False)
class Kept:
    """Candidates as they are kept: good until the next await, which may give a place to another.

    rows: ITEM_ROW of many items; item_of: shape (n,), the place of each candidate there.
    item_hash: id64 of each item of `rows`, 0 of the row of nothing known.
    names, category_hash: of each of their categories once, shape (m,); category_of: shape (n,).
    """

    rows: Rows
    item_hash: npt.NDArray[np.uint64]
    item_of: Places
    names: list[str]
    category_hash: npt.NDArray[np.uint64]
    category_of: Places


class KeptRows:
    """Another store's rows, at most `age_s` behind; 0: always read, unless changes are told.

    A reading that fails raises DependencyUnavailable; what is kept stays in use.
    """

    def __init__(
        self,
        store: FeatureStore,
        *,
        age_s: float,
        rows_max: int,
        clock_s: Callable[[], float],
        metrics_of: Metrics,
    ) -> None:
        self._store = store
        self._age_s = age_s
        self._clock_s = clock_s
        self._items = ItemTable(rows_max=rows_max)
        self._categories: RowTable[str] = RowTable(empty_rows(1, CATEGORY_ROW), rows_max=rows_max)
        none = np.zeros(1, _BOTH)
        none["rows"] = empty_rows(2, CONTEXT_ROW)
        self._contexts: RowTable[tuple[str, str]] = RowTable(none, rows_max=rows_max)
        self._told = {ITEM_STATE.name: self._items, CATEGORY_STATE.name: self._categories}
        self._refreshing: set[asyncio.Task[None]] = set()
        self._tracked = metrics_of.gauge(metrics.RANKER_ROWS_TRACKED)
        self._stale = metrics_of.histogram(metrics.RANKER_ROWS_STALE)
        rows = metrics_of.counter(metrics.RANKER_ROWS)
        self._count = {
            (view, source): rows.labels(view, source)
            for view in ("items", "categories", "contexts")
            for source in ("kept", "store")
        }

    def tracked(self) -> None:
        """From now on every change of items and categories is told."""
        self._track(self._clock_s())

    def untracked(self) -> None:
        """From now on none is."""
        self._track(np.inf)

    def _track(self, tracked_s: float) -> None:
        for table in self._told.values():
            table.track(tracked_s)
        self._tracked.set(float(tracked_s < np.inf))

    def changed(self, view: str, entity_ids: list[str] | None) -> None:
        """The store has other rows of these by now."""
        self._told[view].changed(entity_ids, self._clock_s())

    async def user(self, user_id: str) -> Rows:
        """USER_ROW, shape (1,), as of now."""
        return await self._store.user(user_id)

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> Rows:
        """As `user`, in one round trip with the items that have to be waited for."""
        now_s = self._clock_s()
        places = self._items.places(item_ids)
        late = self._due(self._items, "items", item_ids, places, self._store.items, now_s)
        if not late:
            return await self._store.user(user_id)
        user, found = await self._store.user_and_items(user_id, late)
        self._items.put(late, found, now_s)
        return user

    def due_items(self, item_ids: Sequence[str], kept: Kept) -> list[str]:
        """Which of the candidates have to be read before they are used."""
        now_s = self._clock_s()
        return self._due(self._items, "items", item_ids, kept.item_of, self._store.items, now_s)

    async def read_items(self, item_ids: Sequence[str]) -> None:
        """Read them now."""
        now_s = self._clock_s()
        self._items.put(item_ids, await self._store.items(item_ids), now_s)

    def due_categories(self, names: Sequence[str]) -> list[str]:
        """Which of the categories have to be read before they are used."""
        table, now_s = self._categories, self._clock_s()
        places = table.places(names)
        return self._due(table, "categories", names, places, self._store.categories, now_s)

    async def read_categories(self, names: Sequence[str]) -> None:
        """Read them now."""
        now_s = self._clock_s()
        self._categories.put(names, await self._store.categories(names), now_s)

    async def context(self, query: str, location: str) -> Rows:
        """CONTEXT_ROW, shape (1, 2)."""
        if not query and not location:
            return empty_rows(2, CONTEXT_ROW)[None]

        async def read(keys: Sequence[tuple[str, str]]) -> Rows:
            found = np.zeros(len(keys), _BOTH)
            for k, key in enumerate(keys):
                found["rows"][k] = (await self._store.context(*key))[0]
            return found

        table, keys, now_s = self._contexts, ((query, location),), self._clock_s()
        if self._due(table, "contexts", keys, table.places(keys), read, now_s):
            table.put(keys, await read(keys), now_s)
        context: Rows = table.rows["rows"][table.places(keys)]
        return context

    def items(self, item_ids: Sequence[str]) -> Kept:
        """The candidates; one that is not kept has the row of nothing known."""
        table = self._items
        places = table.places(item_ids)
        numbers = table.category[places]
        place = np.zeros(len(table.names), np.intp)
        place[numbers] = 1
        known = np.flatnonzero(place)
        place[known] = np.arange(len(known))
        return Kept(
            table.rows,
            table.hash,
            places,
            [table.names[number] for number in known.tolist()],
            np.array([table.hashes[number] for number in known.tolist()], np.uint64),
            place[numbers],
        )

    def used(self, kept: Kept) -> None:
        """Export for how long what an answer is made of may have been out of date."""
        since_s = self._items.since_s[kept.item_of[kept.item_of != NOWHERE]]
        behind_s = self._clock_s() - float(since_s.min(initial=np.inf))
        self._stale.observe(max(0.0, behind_s))

    def categories(self, names: Sequence[str]) -> Rows:
        """CATEGORY_ROW, shape (m,), as they are kept."""
        return self._categories.rows[self._categories.places(names)]

    def _due(
        self,
        table: RowTable[Key],
        view: str,
        ids: Sequence[Key],
        places: Places,
        read: Read,
        now_s: float,
    ) -> list[Key]:
        """What has to be waited for; what will have to be soon is read meanwhile."""
        late, soon = table.due(places, now_s, self._age_s)
        self._count[view, "kept"].inc(len(ids) - len(late))
        self._count[view, "store"].inc(len(late))
        if len(soon):
            task = asyncio.create_task(self._refresh(table, _at(ids, soon), read, now_s))
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)
        return _at(ids, late)

    async def _refresh(
        self, table: RowTable[Key], ids: list[Key], read: Read, now_s: float
    ) -> None:
        try:
            table.put(ids, await read(ids), now_s)
        except (DependencyUnavailable, SpecMismatch):
            return  # they grow too old, and whoever waits for them then is told


def _at(ids: Sequence[Key], places: Places) -> list[Key]:
    return [ids[place] for place in places.tolist()]
