"""Records of topic `items`: what is refused, and what a tombstone amounts to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rankstream.contracts.codec import decode_message
from rankstream.contracts.events import ItemUpdate
from rankstream.contracts.items import AHEAD_MS_MAX, decode_item, deleted_item
from rankstream.errors import InvalidEvent
from rankstream.pb import events_pb2 as pb

T_MS = 1_800_000_000_000


def an_item(updated_ms: int) -> bytes:
    return pb.Item(item_id="i1", updated_ms=updated_ms).SerializeToString()


def test_an_update_from_the_future_is_refused_so_that_later_ones_are_not_kept_out() -> None:
    at_the_limit = decode_item(an_item(T_MS + AHEAD_MS_MAX), append_time_ms=T_MS)

    assert at_the_limit.updated_ms == T_MS + AHEAD_MS_MAX
    with pytest.raises(InvalidEvent, match="60001 ms ahead of the log's clock"):
        decode_item(an_item(T_MS + AHEAD_MS_MAX + 1), append_time_ms=T_MS)


def test_without_a_clock_the_time_is_not_judged() -> None:
    assert decode_item(an_item(T_MS)).updated_ms == T_MS


def test_a_tombstone_withdraws_its_item_as_of_its_append() -> None:
    item = decode_item(deleted_item(b"i1", T_MS), append_time_ms=T_MS)

    assert (item.item_id, item.withdrawn, item.updated_ms) == ("i1", True, T_MS)


def test_a_tombstone_without_a_key_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="item_id has 0 characters"):
        decode_item(deleted_item(b"", T_MS))


@pytest.mark.parametrize(("name", "value"), [("latitude", -90.1), ("longitude", 181.0)])
def test_a_place_off_the_earth_is_refused_by_name(name: str, value: float) -> None:
    item = pb.Item(item_id="i1", updated_ms=T_MS, attributes={name: value})

    with pytest.raises(InvalidEvent, match=f"{name} is {value:g}"):
        decode_item(item.SerializeToString())
    with pytest.raises(ValidationError, match=f"{name} is {value:g}"):
        ItemUpdate(item_id="i1", updated_ms=T_MS, attributes={name: value})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ({"title": "x" * 1025}, "title has 1025 characters .limit 1024."),
        ({"description": "x" * 4097}, "description has 4097 characters .limit 4096."),
        ({"tags": ["x"] * 65}, "it has 65 tags .limit 64."),
        ({"tags": ["x" * 65]}, "a tag is empty or has 65 characters .limit 64."),
        ({"tags": ["x", ""]}, "a tag is empty"),
    ],
)
def test_text_that_is_too_long_is_refused_by_name(text: dict[str, Any], problem: str) -> None:
    item = pb.Item(item_id="i1", updated_ms=T_MS, **text)

    with pytest.raises(InvalidEvent, match=problem):
        decode_item(item.SerializeToString())
    with pytest.raises(InvalidEvent, match=next(iter(text))):
        decode_message(
            json.dumps({"kind": "item_update", "item_id": "i1", "updated_ms": T_MS} | text).encode()
        )


def test_text_at_the_limits_is_kept() -> None:
    text: dict[str, Any] = {
        "title": "ü" * 1024,
        "description": "ü" * 4096,
        "tags": ["ü" * 64 for _ in range(64)],
    }

    item = decode_item(pb.Item(item_id="i1", updated_ms=T_MS, **text).SerializeToString())
    body = {"kind": "item_update", "item_id": "i1", "updated_ms": T_MS} | text
    update = decode_message(json.dumps(body).encode())

    assert isinstance(update, ItemUpdate)
    assert (item.title, item.description, list(item.tags)) == tuple(text.values())
    assert (update.title, update.description, list(update.tags)) == tuple(text.values())
