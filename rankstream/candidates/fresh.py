"""Items that the index was built without: few, and searched exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankstream.adapters.cold_vectors import ColdVectors
from rankstream.candidates.attributes import Category, passing
from rankstream.candidates.item_columns import FACTS, Facts
from rankstream.candidates.origins import NOT_FRESH, Fresh
from rankstream.contracts.content import Content
from rankstream.contracts.filter import ItemFilter
from rankstream.contracts.ids import id64


class FreshItems:
    """New items, at most `limit`; of more, those that were told of first are forgotten."""

    def __init__(self, cold: ColdVectors, *, limit: int) -> None:
        self._cold = cold
        self._limit = limit
        self._place: dict[int, int] = {}  # id64 -> where it is below, in the order they came
        self._item_id: list[str] = []
        self._facts: Facts = np.empty(limit, FACTS)
        self._vectors = np.empty((limit, len(cold.rest)), np.float32)
        self._content: list[Content] = []
        self._by_content = np.zeros(limit, bool)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._item_id)

    @property
    def by_content(self) -> int:
        """How many have the vector of their content; the others, that of their category."""
        return int(np.count_nonzero(self._by_content[: len(self)]))

    def put(self, item_id: str, content: Content, facts: Facts) -> bool:
        """Take an item in, or what it is like now; False if the oldest made room for it."""
        (key,) = facts["item"].tolist()
        place = self._place.get(key)
        had_room = place is not None or len(self._item_id) < self._limit
        if not had_room:
            self.drop(next(iter(self._place)))
        if place is None:
            place = self._place[key] = len(self._item_id)
            self._item_id.append(item_id)
            self._content.append(content)
        self._facts[place], self._content[place] = facts[0], content
        self._vectors[place], self._by_content[place] = self._cold.of(content)
        return had_room

    def drop(self, item: int) -> None:
        """Forget an item, if it is here; the last one takes its place."""
        place = self._place.pop(item, None)
        if place is None:
            return
        last = len(self._item_id) - 1
        if place < last:
            self._item_id[place] = self._item_id[last]
            self._content[place] = self._content[last]
            for column in (self._facts, self._vectors, self._by_content):
                column[place] = column[last]
            self._place[int(self._facts["item"][place])] = place
        self._item_id.pop()
        self._content.pop()

    def all(self) -> list[tuple[str, Content, Facts]]:
        """Id, content and FACTS, shape (1,), of each, in the order they came."""
        return [
            (self._item_id[place], self._content[place], self._facts[place : place + 1].copy())
            for place in self._place.values()
        ]

    def passing(
        self, wanted: ItemFilter | None, category: Category, excluded: npt.NDArray[np.uint64]
    ) -> Fresh:
        """Those that pass a filter and are not excluded.

        Args:
            category: number of a category, as in their FACTS.
            excluded: id64, any order.
        """
        facts = self._facts[: len(self._item_id)]
        if not len(facts):
            return NOT_FRESH
        held = ~np.isin(facts["item"], excluded)
        if wanted is not None:
            held &= passing(wanted, category, {name: facts[name] for name in FACTS.names or ()})
            if wanted.item_ids:
                listed = np.fromiter(map(id64, wanted.item_ids), np.uint64, len(wanted.item_ids))
                held &= np.isin(facts["item"], listed)
        places = np.flatnonzero(held)
        return Fresh([self._item_id[place] for place in places.tolist()], self._vectors[places])
