"""Records of topic `items`: what is known of an item now."""

from __future__ import annotations

import math
from typing import Final

from google.protobuf.message import DecodeError

from rankstream.contracts.base import (
    CATEGORY_BYTES_MAX,
    DEGREES_MAX,
    DESCRIPTION_CHARACTERS_MAX,
    ID_BYTES_MAX,
    TAG_CHARACTERS_MAX,
    TAGS_MAX,
    TITLE_CHARACTERS_MAX,
)
from rankstream.errors import InvalidEvent
from rankstream.pb import events_pb2 as pb

# Beyond this a number is no attribute: float32 holds it and so does any scaler.
ATTRIBUTE_MAX: Final = 1e9
AHEAD_MS_MAX: Final = 60_000


def decode_item(
    record: bytes, *, append_time_ms: int | None = None, ahead_ms_max: int = AHEAD_MS_MAX
) -> pb.Item:
    """The item that a record describes.

    Args:
        append_time_ms: the broker's clock when it was appended; None: its time is not judged. An
            update from the future would keep every later one out.

    Raises: InvalidEvent if it is no Item or breaks the contract.
    """
    try:
        item = pb.Item.FromString(record)
    except DecodeError as error:
        raise InvalidEvent(
            f"invalid_event: record of {len(record)} bytes is not an Item: {error}."
            " Not folded. Send it through ingest, or encode it with events.proto."
        ) from None
    category = item.category.encode()
    ahead_ms = 0 if append_time_ms is None else item.updated_ms - append_time_ms
    checks = (
        (0 < len(item.item_id) <= ID_BYTES_MAX, f"item_id has {len(item.item_id)} characters"),
        (
            len(category) <= CATEGORY_BYTES_MAX,
            f"category has {len(category)} bytes (limit {CATEGORY_BYTES_MAX})",
        ),
        (b"\0" not in category, "category holds a zero byte"),
        *_text(item),
        (item.updated_ms > 0, f"updated_ms={item.updated_ms} is not a time"),
        (
            ahead_ms <= ahead_ms_max,
            f"updated_ms={item.updated_ms} is {ahead_ms} ms ahead of the log's clock"
            f" (limit {ahead_ms_max} ms)",
        ),
        (
            all(
                math.isfinite(number) and abs(number) <= ATTRIBUTE_MAX
                for number in item.attributes.values()
            ),
            f"an attribute is not a number within ±{ATTRIBUTE_MAX:g}",
        ),
        *(
            (
                abs(item.attributes.get(name, 0.0)) <= most,
                f"{name} is {item.attributes.get(name):g} (limit ±{most:g} degrees)",
            )
            for name, most in DEGREES_MAX.items()
            if name in item.attributes
        ),
    )
    for holds, problem in checks:
        if not holds:
            raise InvalidEvent(
                f"invalid_event: item {item.item_id[:80]!r}: {problem}. Not folded."
                " Send the item again with the field mended."
            )
    return item


def _text(item: pb.Item) -> list[tuple[bool, str]]:
    """What must hold of its text, and what is wrong if it does not."""
    longest = max(map(len, item.tags), default=1)
    return [
        *(
            (len(text) <= most, f"{name} has {len(text)} characters (limit {most})")
            for name, text, most in (
                ("title", item.title, TITLE_CHARACTERS_MAX),
                ("description", item.description, DESCRIPTION_CHARACTERS_MAX),
            )
        ),
        (len(item.tags) <= TAGS_MAX, f"it has {len(item.tags)} tags (limit {TAGS_MAX})"),
        (
            all(item.tags) and longest <= TAG_CHARACTERS_MAX,
            f"a tag is empty or has {longest} characters (limit {TAG_CHARACTERS_MAX})",
        ),
    ]


def deleted_item(key: bytes, append_time_ms: int) -> bytes:
    """The record that a tombstone amounts to: the item is withdrawn as of then."""
    item_id = key.decode(errors="replace")
    item = pb.Item(item_id=item_id, withdrawn=True, updated_ms=append_time_ms)
    return item.SerializeToString()
