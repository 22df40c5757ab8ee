"""New items against a dict of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.adapters.cold_vectors import ColdVectors, ContentVectors, Vocabulary
from rankstream.candidates.fresh import FreshItems
from rankstream.candidates.item_columns import ItemColumns
from rankstream.contracts.content import content_of
from rankstream.contracts.filter import GeoRadius, ItemFilter, PriceRange
from rankstream.contracts.ids import id64
from rankstream.pb.events_pb2 import Item

CATEGORIES = ("a", "b", "new")
TITLE = {"b": "Green tea"}  # of the items of a category
COLD = ColdVectors(
    {"a": np.array([1, 0], np.float32), "b": np.array([0, 1], np.float32)},
    np.array([3, 3], np.float32),
    ContentVectors(
        np.array([1, 1], np.float32),
        Vocabulary(np.array([id64("word:tea")], np.uint64), {}),
        np.array([[4, 0]], np.float32),
    ),
)
VECTOR = {"a": [1, 0], "b": [5, 1], "new": [3, 3]}
NAMES = [f"n{number}" for number in range(6)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.sampled_from(CATEGORIES) | st.none(),  # None: it is dropped
            st.sampled_from([1.0, 5.0]),
        ),
        max_size=25,
    ),
    st.integers(1, 4),
    st.sets(st.sampled_from(NAMES)),
)
def test_they_are_what_a_dict_of_them_holds(
    changes: list[tuple[str, str | None, float]], limit: int, excluded: set[str]
) -> None:
    columns, fresh = ItemColumns(), FreshItems(COLD, limit=limit)
    held: dict[str, tuple[str, float]] = {}
    for name, category, price in changes:
        if category is None:
            fresh.drop(id64(name))
            held.pop(name, None)
            continue
        item = Item(item_id=name, category=category, title=TITLE.get(category, ""), updated_ms=1)
        item.attributes.update({"price": price, "latitude": price, "longitude": 0.0})
        facts = columns.learn(item)
        assert facts is not None
        full = name not in held and len(held) == limit

        assert fresh.put(name, content_of(item), facts) is not full

        if full:
            del held[next(iter(held))]
        held[name] = category, price
    out = np.array([id64(name) for name in excluded], np.uint64)
    near = GeoRadius(latitude=1, longitude=0, radius_km=9)
    filters: list[tuple[ItemFilter | None, set[str]]] = [
        (None, set(held)),
        (ItemFilter(categories=["a"]), {n for n, (c, _) in held.items() if c == "a"}),
        (ItemFilter(price=PriceRange(min=2)), {n for n, (_, p) in held.items() if p > 2}),
        (ItemFilter(near=near), {n for n, (_, p) in held.items() if p == 1}),
        (ItemFilter(item_ids=["n0", "n1"]), held.keys() & {"n0", "n1"}),
    ]
    for wanted, expected in filters:
        found = fresh.passing(wanted, columns.category, out)

        assert set(found.item_id) == expected - excluded
        for name, vector in zip(found.item_id, found.vectors, strict=True):
            assert vector.tolist() == VECTOR[held[name][0]]
    assert [(name, content.category) for name, content, _ in fresh.all()] == [
        (name, category) for name, (category, _) in held.items()
    ]
    assert fresh.by_content == sum(category in TITLE for category, _ in held.values())
    assert len(fresh) == len(held)
