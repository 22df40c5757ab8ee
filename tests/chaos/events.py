"""Events of the fault run as plain tuples, and the records of topic `events` that hold them.

Written from `events.proto` alone: neither the product's encoder nor its decoder takes part, so that
a mistake in either shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from rankstream.pb import events_pb2 as pb

IMPRESSION: Final = 1
CLICK: Final = 2
VIEW: Final = 3
VISIT: Final = 4
RATE: Final = 5
PURCHASE: Final = 6
USER_UPDATE: Final = 8
CONTEXT: Final = 9
TICK: Final = 10
KINDS: Final = (
    IMPRESSION,
    CLICK,
    VIEW,
    VISIT,
    RATE,
    PURCHASE,
    USER_UPDATE,
    CONTEXT,
    TICK,
)
ID_BYTES: Final = 16

Attributes = tuple[tuple[str, float], ...]


class Event(NamedTuple):
    """One row of a record."""

    kind: int
    event_id: bytes
    time_ms: int
    user: str
    item: str = ""
    request: str = ""
    category: str = ""
    position: int = 0
    value: float = 0.0
    attributes: Attributes = ()
    query: str = ""
    location: str = ""


def record_of(events: Sequence[Event]) -> bytes:
    """An EventBatch of these events."""
    known = {"": 0}

    def number(text: str) -> int:
        return known.setdefault(text, len(known))

    batch = pb.EventBatch(
        event_id=b"".join(event.event_id for event in events),
        kind=[event.kind for event in events],  # type: ignore[misc]  # an enum's numbers
        event_time_ms=[event.time_ms for event in events],
        user_id=[number(event.user) for event in events],
        item_id=[number(event.item) for event in events],
        request_id=[number(event.request) for event in events],
        category=[number(event.category) for event in events],
        position=[event.position for event in events],
        value=[event.value for event in events],
        query=[number(event.query) for event in events],
        location=[number(event.location) for event in events],
    )
    for row, event in enumerate(events):
        for name, value in event.attributes:
            batch.attribute_row.append(row)
            batch.attribute_name.append(number(name))
            batch.attribute_text.append(0)
            batch.attribute_number.append(value)
    batch.strings.extend(known)
    return batch.SerializeToString()


def events_of(record: bytes) -> list[Event] | None:
    """The events of a record; None if it is no EventBatch with a row.

    Of records that this run makes: the whole ones have columns of one length, or none.
    """
    batch = _parsed(record)
    if batch is None or not batch.kind:
        return None
    n, strings = len(batch.kind), list(batch.strings)

    def texts(column: Sequence[int]) -> list[str]:
        return [strings[index] for index in column] if column else [""] * n

    attributes = _attributes(batch, strings)
    ids = batch.event_id
    columns = zip(
        batch.kind,
        (ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)),
        batch.event_time_ms,
        texts(batch.user_id),
        texts(batch.item_id),
        texts(batch.request_id),
        texts(batch.category),
        batch.position or [0] * n,
        batch.value or [0.0] * n,
        (attributes.get(row, ()) for row in range(n)),
        texts(batch.query),
        texts(batch.location),
        strict=True,
    )
    return list(map(Event._make, columns))


def _parsed(record: bytes) -> pb.EventBatch | None:
    try:
        return pb.EventBatch.FromString(record)
    except DecodeError:
        return None


def _attributes(batch: pb.EventBatch, strings: Sequence[str]) -> dict[int, Attributes]:
    found: dict[int, Attributes] = {}
    columns = (batch.attribute_row, batch.attribute_name, batch.attribute_number)
    for row, name, value in zip(*columns, strict=True):
        found[row] = (*found.get(row, ()), (strings[name], value))
    return found
