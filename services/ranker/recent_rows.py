"""A FeatureStore that reads a row that is not a user's anew only when it has grown old.

Every request asks for the same popular items: most of their rows were read some milliseconds ago.
A user's row is always read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, Rows, empty_rows
from rankstream.ports import FeatureStore

Places = npt.NDArray[np.intp]
_NEVER: Final = -np.inf
# The rows of a query and of a location, kept together.
_BOTH: Final = np.dtype([("rows", CONTEXT_ROW, (2,))])


class RecentRows:
    """The rows of one view read last, at most `rows_max`; the oldest place is given away first."""

    def __init__(self, dtype: np.dtype[np.void], *, age_s: float, rows_max: int) -> None:
        self._age_s = age_s
        self._place_of: dict[Hashable, int] = {}
        self._ids: list[Hashable | None] = [None] * rows_max
        self._next = 0
        # Memory is taken as places are.
        self._rows: Rows = np.zeros(rows_max, dtype)
        self._read_s = np.full(rows_max, _NEVER)

    def take(self, ids: Sequence[Hashable], now_s: float) -> tuple[Rows, Places]:
        """A copy of the rows, shape (n,), and where in it a row is missing or too old."""
        place_of = self._place_of.get
        places = np.array([place_of(entity_id, -1) for entity_id in ids], np.intp)
        old = (places < 0) | (self._read_s[places] <= now_s - self._age_s)
        return self._rows[places], np.flatnonzero(old)

    def put(self, ids: Sequence[Hashable], rows: Rows, read_s: float) -> None:
        """Keep rows whose reading began at a time, unless a later reading is kept."""
        places = np.array([self._place(entity_id) for entity_id in ids], np.intp)
        newer = np.flatnonzero(self._read_s[places] <= read_s)
        self._rows[places[newer]] = rows[newer]
        self._read_s[places[newer]] = read_s

    def _place(self, entity_id: Hashable) -> int:
        place = self._place_of.get(entity_id)
        if place is not None:
            return place
        place, self._next = self._next, (self._next + 1) % len(self._ids)
        before = self._ids[place]
        if before is not None:
            del self._place_of[before]
        self._ids[place], self._place_of[entity_id] = entity_id, place
        self._read_s[place] = _NEVER
        return place


class RecentFeatureStore:
    """Another store behind rows, users' aside, at most `age_s` old; 0: always read."""

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
        self._clock_s = clock_s
        self._items = RecentRows(ITEM_ROW, age_s=age_s, rows_max=rows_max)
        self._categories = RecentRows(CATEGORY_ROW, age_s=age_s, rows_max=rows_max)
        self._contexts = RecentRows(_BOTH, age_s=age_s, rows_max=rows_max)
        rows = metrics_of.counter(metrics.RANKER_ROWS)
        self._count = {
            (view, source): rows.labels(view, source)
            for view in ("items", "categories", "contexts")
            for source in ("kept", "store")
        }

    async def user(self, user_id: str) -> Rows:
        """As of now."""
        return await self._store.user(user_id)

    async def items(self, item_ids: Sequence[str]) -> Rows:
        """Some of them read before."""
        now_s = self._clock_s()
        rows, old = self._taken("items", self._items, item_ids, now_s)
        if len(old):
            ids = [item_ids[place] for place in old.tolist()]
            rows[old] = found = await self._store.items(ids)
            self._items.put(ids, found, now_s)
        return rows

    async def categories(self, names: Sequence[str]) -> Rows:
        """Some of them read before."""
        now_s = self._clock_s()
        rows, old = self._taken("categories", self._categories, names, now_s)
        if len(old):
            missing = [names[place] for place in old.tolist()]
            rows[old] = found = await self._store.categories(missing)
            self._categories.put(missing, found, now_s)
        return rows

    async def context(self, query: str, location: str) -> Rows:
        """Maybe read before."""
        if not query and not location:
            return empty_rows(2, CONTEXT_ROW)[None]
        now_s = self._clock_s()
        key = (query, location)
        rows, old = self._taken("contexts", self._contexts, (key,), now_s)
        if len(old):
            found = await self._store.context(query, location)
            rows["rows"] = found
            self._contexts.put((key,), rows, now_s)
        context: Rows = rows["rows"]
        return context

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> tuple[Rows, Rows]:
        """The user as of now, some of the items read before."""
        now_s = self._clock_s()
        rows, old = self._taken("items", self._items, item_ids, now_s)
        ids = [item_ids[place] for place in old.tolist()]
        user, found = await self._store.user_and_items(user_id, ids)
        rows[old] = found
        self._items.put(ids, found, now_s)
        return user, rows

    def _taken(
        self, view: str, kept: RecentRows, ids: Sequence[Hashable], now_s: float
    ) -> tuple[Rows, Places]:
        rows, old = kept.take(ids, now_s)
        self._count[view, "kept"].inc(len(ids) - len(old))
        self._count[view, "store"].inc(len(old))
        return rows, old
