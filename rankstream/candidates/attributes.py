"""What is known of the rows of one index, and which rows pass a filter.

Nothing is made for a request that is not kept or small: bits of what is available, and of the
categories and prices that were asked for lately, change with each item update; a filter by place or
by ids is a list of rows from the start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.candidates.item_columns import Facts
from rankstream.candidates.places import Places, closeness, within
from rankstream.contracts.filter import GeoRadius, ItemFilter, PriceRange
from rankstream.contracts.subset import Rows, Subset, Words, packed, set_bit

KEPT_MAX: Final = 64  # sets of bits: 1.25 MB each at 10 M rows

Columns = Mapping[str, npt.NDArray[Any]]  # of FACTS, by name
Category = Callable[[str], int | None]  # its number in FACTS; None: no item has had it
# Which rows of some columns pass.
Test = Callable[[Columns], npt.NDArray[np.bool_]]


class Attributes:
    """Facts of m rows, kept as items change."""

    def __init__(self, facts: Facts, category: Category) -> None:
        """`facts`: of each row, shape (m,)."""
        # One array per column: a filter reads few of them.
        self._facts = {name: facts[name].copy() for name in facts.dtype.names or ()}
        self._category = category
        self._available: Words = packed(~facts["withdrawn"])
        self._left = int(np.count_nonzero(~facts["withdrawn"]))
        self._places = Places(*(self._facts[name] for name in ("cell", "place")))
        self._kept: OrderedDict[object, tuple[Test, Words]] = OrderedDict()

    @property
    def withdrawn(self) -> int:
        """Rows that never come back."""
        return len(self._facts["withdrawn"]) - self._left

    def change(self, row: int, facts: Facts) -> None:
        """Take over the facts, shape (1,), of one row."""
        for name, column in self._facts.items():
            if name == "place" and not np.array_equal(column[row], facts[name][0], equal_nan=True):
                self._places.moved(row)
            if name == "withdrawn":
                self._left += int(column[row]) - int(facts[name][0])
            column[row] = facts[name][0]
        set_bit(self._available, row, not facts["withdrawn"][0])
        changed = {name: facts[name] for name in self._facts}
        for passes, words in self._kept.values():
            set_bit(words, row, bool(passes(changed)[0]))

    def subset(
        self, wanted: ItemFilter | None, rows_of: Callable[[list[str]], Rows]
    ) -> Subset | None:
        """The rows that are available and pass the filter; None: all rows are.

        Args:
            rows_of: rows of those of the ids that are in the table.
        """
        size = len(self._facts["withdrawn"])
        if wanted is None or wanted.is_empty:
            if self._left == size:
                return None
            return Subset(size, words=self._available, count=self._left)
        if wanted.near is None and not wanted.item_ids:
            words = self._available
            for any_of in _tests(wanted, self._category):
                words = words & self._any(any_of)
            return Subset(size, words=words)
        rows = np.unique(rows_of(wanted.item_ids)) if wanted.item_ids else None
        if wanted.near is not None:
            near = self._places.within(wanted.near)
            rows = near if rows is None else np.intersect1d(rows, near, assume_unique=True)
        assert rows is not None
        rows = rows[~self._facts["withdrawn"][rows]]
        columns = {name: column[rows] for name, column in self._facts.items()}
        return Subset(size, rows=rows[_passing(_tests(wanted, self._category), columns, len(rows))])

    def near(self, around: GeoRadius) -> tuple[Rows, npt.NDArray[np.float32]]:
        """The rows within a radius, ascending, withdrawn ones too, and their closeness."""
        rows = self._places.within(around)
        return rows, closeness(around, self._facts["place"][rows])

    def _any(self, tests: list[tuple[object, Test]]) -> Words:
        if not tests:
            return np.zeros_like(self._available)
        words = self._bits(tests[0])
        for test in tests[1:]:
            words = words | self._bits(test)
        return words

    def _bits(self, test: tuple[object, Test]) -> Words:
        key, passes = test
        found = self._kept.get(key)
        if found is None:
            found = passes, packed(passes(self._facts))
            if len(self._kept) == KEPT_MAX:
                self._kept.popitem(last=False)
            self._kept[key] = found
        self._kept.move_to_end(key)
        return found[1]


def passing(wanted: ItemFilter, category: Category, columns: Columns) -> npt.NDArray[np.bool_]:
    """Which of n rows pass a filter but for its list of items, bool, shape (n,).

    Args:
        columns: of FACTS, shape (n,) each.
    """
    passes = _passing(_tests(wanted, category), columns, len(columns["price"]))
    if wanted.near is not None:
        passes &= within(wanted.near, columns["place"])
    return passes


def _tests(wanted: ItemFilter, category: Category) -> list[list[tuple[object, Test]]]:
    """What a row must pass but for its place and its id: of each list, any."""
    tests: list[list[tuple[object, Test]]] = []
    if wanted.categories:
        known = {category(name) for name in wanted.categories} - {None}
        tests.append([(("category", number), partial(_has, number)) for number in known])
    if wanted.price is not None:
        price = wanted.price
        tests.append([(("price", price.min, price.max), partial(_between, price))])
    return tests


def _passing(
    tests: list[list[tuple[object, Test]]], columns: Columns, n: int
) -> npt.NDArray[np.bool_]:
    held = np.ones(n, bool)
    for any_of in tests:
        either = np.zeros(n, bool)
        for _, passes in any_of:
            either |= passes(columns)
        held &= either
    return held


def _has(category: int | None, columns: Columns) -> npt.NDArray[np.bool_]:
    passes: npt.NDArray[np.bool_] = columns["category"] == category
    return passes


def _between(wanted: PriceRange, columns: Columns) -> npt.NDArray[np.bool_]:
    """nan passes nothing. Bounds are rounded as prices are."""
    prices = columns["price"]
    passes: npt.NDArray[np.bool_] = ~np.isnan(prices)
    with np.errstate(over="ignore"):  # a bound beyond float32 is infinite, and that is right
        if wanted.min is not None:
            passes &= prices >= np.float32(wanted.min)
        if wanted.max is not None:
            passes &= prices <= np.float32(wanted.max)
    return passes
