"""Updates of items out of order, repeated and broken: the newest one stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.codec import encode_item
from rankstream.contracts.events import ItemUpdate
from rankstream.contracts.record import Record
from rankstream.errors import InvalidEvent
from rankstream.features.deltas import Entity
from rankstream.features.rows import ITEM_ROW
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition

ITEMS = ("i0", "i1", "i2")
UPDATES = st.lists(
    st.builds(
        ItemUpdate,
        item_id=st.sampled_from(ITEMS),
        category=st.sampled_from(["", "drama", "war"]),
        withdrawn=st.booleans(),
        updated_ms=st.integers(1, 5),
        attributes=st.dictionaries(st.just("price"), st.integers(0, 9).map(float)),
    ),
    max_size=25,
)


def _item(offset: int, value: bytes) -> Record:
    return Record("items", 0, offset, 0, b"", value)


def known(state: ItemPartition) -> dict[str, tuple[str, bool, float]]:
    """Category, withdrawn and price of each item; nan for a price that is not known."""
    found = {}
    for item_id, packed in state.rows(Entity.ITEM, ITEMS):
        (row,) = np.frombuffer(packed, ITEM_ROW)
        price = float(row["attributes"][1])
        found[item_id] = (row["category"].decode(), bool(row["withdrawn"]), price)
    return found


def newest(updates: list[ItemUpdate]) -> dict[str, tuple[str, bool, float]]:
    """The slow way: of each item the update of the largest time, of equals the last."""
    found: dict[str, ItemUpdate] = {}
    for update in updates:
        if update.updated_ms >= getattr(found.get(update.item_id), "updated_ms", 0):
            found[update.item_id] = update
    return {
        item_id: (update.category, update.withdrawn, update.attributes.get("price", np.nan))
        for item_id, update in found.items()
    }


@given(UPDATES)
def test_the_newest_update_of_each_item_stands(updates: list[ItemUpdate]) -> None:
    state = ItemPartition(0)

    for offset, update in enumerate(updates):
        state.fold_items([_item(offset, encode_item(update))])

    np.testing.assert_equal(known(state), newest(updates))


@given(st.data())
def test_the_order_in_which_they_come_changes_nothing(data: st.DataObject) -> None:
    updates = data.draw(UPDATES)
    distinct = list({(u.item_id, u.updated_ms): u for u in updates}.values())
    shuffled = data.draw(st.permutations(distinct))
    one, other = ItemPartition(0), ItemPartition(0)

    for offset, (first, second) in enumerate(zip(distinct, shuffled, strict=True)):
        one.fold_items([_item(offset, encode_item(first))])
        other.fold_items([_item(offset, encode_item(second))])

    np.testing.assert_equal(known(one), known(other))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"\xff", "not an Item"),
        (pb.Item(updated_ms=9).SerializeToString(), "item_id has 0 characters"),
        (pb.Item(item_id="i0").SerializeToString(), "is not a time"),
        (pb.Item(item_id="i0", updated_ms=9, category="c" * 65).SerializeToString(), "65 bytes"),
        (pb.Item(item_id="i0", updated_ms=9, category="a\0b").SerializeToString(), "zero byte"),
        (
            pb.Item(item_id="i0", updated_ms=9, attributes={"price": np.inf}).SerializeToString(),
            "not a number",
        ),
    ],
)
def test_an_update_that_breaks_the_contract_leaves_what_was_known(bad: bytes, why: str) -> None:
    state = ItemPartition(0)
    update = ItemUpdate(item_id="i0", category="drama", updated_ms=5)
    state.fold_items([_item(0, encode_item(update))])

    changed = state.fold_items([_item(1, bad)])

    assert isinstance(changed.refused[0], InvalidEvent)
    assert why in str(changed.refused[0])
    np.testing.assert_equal(known(state), newest([update]))
    assert state.items_offset == 1
