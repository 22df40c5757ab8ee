"""Retailrocket as events: what is honest without impressions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.datasets.retailrocket import history, read
from rankstream.contracts.events import Purchase, View
from rankstream.errors import InvalidInput
from tests.pipelines.datasets.soundness import assert_sound, events_of, told

HEADER = "timestamp,visitorid,event,itemid,transactionid\n"
EVENTS = HEADER + (
    "1433222276276,9,transaction,46156,14001\n"
    "1433221332117,257597,view,355908,\n"
    "1433222276276,9,transaction,46156,14001\n"
    "1433222000000,9,addtocart,46156,\n"
    "1433221999827,9,view,46156,\n"
)
PROPERTY = "timestamp,itemid,property,value\n"


def a_folder(root: Path, *, events: str = EVENTS, parts: tuple[str, ...] = ()) -> Path:
    (root / "events.csv").write_text(events, encoding="utf-8")
    for number, part in enumerate(parts, start=1):
        (root / f"item_properties_part{number}.csv").write_text(PROPERTY + part, encoding="utf-8")
    return root


def test_views_and_transactions_are_events_and_carts_stand_beside(tmp_path: Path) -> None:
    shop = read(a_folder(tmp_path))

    assert told(shop.history) == [
        ("view", "257597", "355908", 0),
        ("view", "9", "46156", 667_710),
        ("purchase", "9", "46156", 944_159),
    ]
    _, view, bought = events_of(shop.history.columns)
    assert isinstance(view, View)
    assert isinstance(bought, Purchase)
    assert (view.request_id, view.value, bought.request_id, bought.value) == ("", 0.0, "", 0.0)
    carts = shop.carts
    assert (carts.user.tolist(), carts.item.tolist()) == ([9], [46156])
    assert carts.time_ms.tolist() == [1433222000000]


def test_the_history_is_sound_and_its_ids_do_not_move_with_the_shift(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)

    one, other = read(folder), read(folder, until_ms=1433222276276 + 5)

    assert_sound(one.history)
    assert one.history.columns.event_id == other.history.columns.event_id
    assert other.carts.time_ms.tolist() == [1433222000005]


def test_items_have_the_last_category_and_availability_of_the_property_files(
    tmp_path: Path,
) -> None:
    first = (
        "1433041200000,46156,categoryid,200\n"
        "1433041200000,46156,790,n277.200 11\n"
        "1433041200000,1,categoryid,300\n"
    )
    second = (
        "1431041200000,46156,categoryid,100\n"
        "1433041200000,46156,available,0\n"
        "1433641200000,46156,available,1\n"
    )

    items = history(a_folder(tmp_path, parts=(first, second))).items

    assert [(i.item_id, i.category, dict(i.attributes)) for i in items] == [
        ("355908", "", {}),
        ("46156", "category-200", {"available": 1.0}),
    ]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (EVENTS + "0,1,view,2,\n", r"events\.csv:7: '0': timestamp"),
        (EVENTS + "1,1,look,2,\n", r"events\.csv:7: 'look': event is not one of view, addtocart"),
        (EVENTS + "1,1,view,x,\n", r"events\.csv:7: itemid: .*'x'"),
        (EVENTS + "1,1,view\n", r"events\.csv:7: Expected 5 columns, got 3"),
        ("timestamp,visitorid\n", r"events\.csv:1: header .* lacks event, itemid, transactionid"),
        (HEADER + "1,1,addtocart,2,\n", r"there are no views and no transactions"),
    ],
)
def test_a_malformed_file_is_refused_with_file_line_and_reason(
    tmp_path: Path, events: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        history(a_folder(tmp_path, events=events))
