"""Which rows pass, as items change, against a loop over the items."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.candidates import attributes
from rankstream.candidates.attributes import Attributes
from rankstream.candidates.item_columns import ItemColumns, facts_of
from rankstream.contracts.filter import GeoRadius, ItemFilter, PriceRange
from rankstream.contracts.ids import id64
from rankstream.contracts.subset import Rows
from rankstream.pb.events_pb2 import Item

M = 12
NAMES = [f"i{n}" for n in range(M)]
HASHES = np.array([id64(name) for name in NAMES], np.uint64)
HOME = (48.0, 11.0)
KM_PER_DEGREE = 111.2


@dataclass(frozen=True)
class Known:
    category: str
    price: float | None
    north: float | None  # degrees from HOME
    withdrawn: bool


@dataclass(frozen=True)
class Asked:
    categories: tuple[str, ...]
    low: float | None
    high: float | None
    km: float | None
    items: tuple[int, ...]


known = st.builds(
    Known,
    st.sampled_from(["", "a", "b", "c"]),
    st.none() | st.sampled_from([1.0, 2.5, 9.9]),
    st.none() | st.sampled_from([0.0, 0.01, 0.5]),
    st.booleans(),
)
asked = st.builds(
    Asked,
    st.sets(st.sampled_from(["a", "b", "nobody has it"])).map(lambda names: tuple(sorted(names))),
    st.none() | st.sampled_from([1.0, 2.0]),
    st.none() | st.sampled_from([2.5, 9.0]),
    st.none() | st.sampled_from([0.5, 5.0, 100.0]),
    st.sets(st.integers(0, M - 1)).map(lambda rows: tuple(sorted(rows))),
)


def an_item(row: int, what: Known, time_ms: int) -> Item:
    values = {"price": what.price, "latitude": None, "longitude": None}
    if what.north is not None:
        values |= {"latitude": HOME[0] + what.north, "longitude": HOME[1]}
    given_ = {name: value for name, value in values.items() if value is not None}
    return Item(
        item_id=NAMES[row],
        category=what.category,
        withdrawn=what.withdrawn,
        attributes=given_,
        updated_ms=time_ms,
    )


def a_filter(what: Asked) -> ItemFilter:
    price = None
    if what.low is not None or what.high is not None:
        price = PriceRange(min=what.low, max=what.high)
    near = None
    if what.km is not None:
        near = GeoRadius(latitude=HOME[0], longitude=HOME[1], radius_km=what.km)
    items = [NAMES[row] for row in what.items]
    return ItemFilter(categories=list(what.categories), price=price, near=near, item_ids=items)


def passes(row: int, item: Known | None, what: Asked) -> bool:
    item = item or Known("", None, None, False)
    if item.withdrawn or (what.items and row not in what.items):
        return False
    if what.categories and item.category not in what.categories:
        return False
    if (what.low is not None or what.high is not None) and not (
        item.price is not None
        and (what.low is None or item.price >= what.low)
        and (what.high is None or item.price <= what.high)
    ):
        return False
    if what.km is None:
        return True
    if item.north is None:
        return False
    return item.north * KM_PER_DEGREE <= what.km


def rows_of(item_ids: list[str]) -> Rows:
    return np.array([NAMES.index(name) for name in item_ids], np.int64)


@given(
    st.lists(st.tuples(st.integers(0, M - 1), known), max_size=15),
    st.lists(st.tuples(st.integers(0, M - 1), known), max_size=15),
    st.lists(asked, min_size=1, max_size=6),
    st.integers(1, 3),
)
def test_a_filter_lets_pass_what_a_loop_lets_pass(
    before: list[tuple[int, Known]],
    after: list[tuple[int, Known]],
    filters: list[Asked],
    kept_max: int,
) -> None:
    columns, items = ItemColumns(), dict[int, Known]()
    for row, what in before:
        columns.learn(an_item(row, what, 1))
        items[row] = what
    held = Attributes(facts_of(columns.frozen(), HASHES), columns.category)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes, "KEPT_MAX", kept_max)
        for change in [None, *after]:
            if change is not None:
                row, what = change
                facts = columns.learn(an_item(row, what, 2))
                assert facts is not None
                held.change(row, facts)
                items[row] = what
            for wanted in filters:
                subset = held.subset(a_filter(wanted), rows_of)

                found = list(range(M)) if subset is None else subset.rows.tolist()
                assert found == [row for row in range(M) if passes(row, items.get(row), wanted)]
                assert subset is None or subset.count == len(found)
            gone = [row for row, item in items.items() if item.withdrawn]
            assert held.withdrawn == len(gone)
            everything = held.subset(None, rows_of)
            assert (everything is None) == (not gone)


def test_a_category_that_is_new_after_it_was_asked_for_is_found() -> None:
    columns = ItemColumns()
    held = Attributes(facts_of(columns.frozen(), HASHES), columns.category)
    wanted = ItemFilter(categories=["new"])
    first = held.subset(wanted, rows_of)
    facts = columns.learn(an_item(3, Known("new", None, None, False), 1))
    assert facts is not None
    held.change(3, facts)
    second = held.subset(wanted, rows_of)

    assert first is not None
    assert second is not None
    assert (first.rows.tolist(), second.rows.tolist()) == ([], [3])


def test_facts_of_an_item_that_nobody_spoke_of_are_unknown() -> None:
    (facts,) = facts_of(ItemColumns().frozen(), HASHES[:1])

    assert (facts["item"], facts["category"], facts["withdrawn"]) == (0, 0, False)
    assert math.isnan(facts["price"])
