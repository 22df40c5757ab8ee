"""A history: past events and items of one public log, ready for Kafka or for a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from rankstream.contracts.batches import TEXT_COLUMNS, encode_rows
from rankstream.contracts.codec import event_at
from rankstream.contracts.columns import EventColumns
from rankstream.contracts.events import ItemUpdate
from rankstream.contracts.ids import partition_of

EVENTS_PER_BATCH: Final = 200
_EVENTS_PER_SLICE: Final = 50 * EVENTS_PER_BATCH
# Namespace of the event ids of public logs: UUIDv5 of DNS and "datasets.rankstream".
NAMESPACE: Final = UUID("30eaa588-aa09-50ce-94ed-bfcce72430e3")


@dataclass(frozen=True)
class HistoryItem:
    """What the log knows of an item."""

    item_id: str
    category: str
    title: str
    updated_ms: int
    attributes: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    tags: tuple[str, ...] = ()

    def update(self) -> ItemUpdate:
        """As the contract that producers send."""
        return ItemUpdate(
            item_id=self.item_id,
            category=self.category,
            title=self.title,
            updated_ms=self.updated_ms,
            attributes=dict(self.attributes),
            description=self.description,
            tags=self.tags,
        )


@dataclass(frozen=True)
class History:
    """Events of all users in order of event time, and the items that they are about."""

    columns: EventColumns
    items: tuple[HistoryItem, ...]


@dataclass(frozen=True)
class Batch:
    """One record of topic `events`."""

    partition: int
    first_ms: int
    events: int
    record: bytes


def event_ids(names: Iterable[str]) -> bytes:
    """16 bytes of UUIDv5 (RFC 9562) per name, in the namespace of public logs."""
    prefix = NAMESPACE.bytes
    digests = bytearray()
    for name in names:
        digests += hashlib.sha1(prefix + name.encode()).digest()[:16]
    ids = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    ids[:, 6] = (ids[:, 6] & 0x0F) | 0x50
    ids[:, 8] = (ids[:, 8] & 0x3F) | 0x80
    return ids.tobytes()


def batches(columns: EventColumns, *, partitions: int) -> list[Batch]:
    """The events as records: event time ascends within a partition and, about, over all of them."""
    names, code = np.unique(columns.user_id, return_inverse=True)
    target = np.array([partition_of(columns.strings[name], partitions) for name in names])[code]
    found = []
    for partition in range(partitions):
        mine = np.flatnonzero(target == partition)
        mine = mine[np.argsort(columns.event_time_ms[mine], kind="stable")]
        for start in range(0, len(mine), _EVENTS_PER_SLICE):
            part = _slice(columns, mine[start : start + _EVENTS_PER_SLICE])
            for first in range(0, len(part), EVENTS_PER_BATCH):
                rows = np.arange(first, min(first + EVENTS_PER_BATCH, len(part)))
                first_ms = int(part.event_time_ms[first])
                found.append(Batch(partition, first_ms, len(rows), encode_rows(part, rows)))
    return sorted(found, key=lambda batch: (batch.first_ms, batch.partition))


def _slice(columns: EventColumns, rows: npt.NDArray[np.intp]) -> EventColumns:
    """Those rows over the same strings: encoding a batch costs by what it is cut from."""
    first = np.searchsorted(columns.attribute_row, rows, "left")
    count = np.searchsorted(columns.attribute_row, rows, "right") - first
    entries = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
    ids = np.frombuffer(columns.event_id, np.uint8).reshape(-1, 16)
    return EventColumns(
        strings=columns.strings,
        kind=columns.kind[rows],
        event_id=ids[rows].tobytes(),
        event_time_ms=columns.event_time_ms[rows],
        position=columns.position[rows],
        value=columns.value[rows],
        attribute_row=np.repeat(np.arange(len(rows)), count).astype(np.uint32),
        attribute_name=columns.attribute_name[entries],
        attribute_text=columns.attribute_text[entries],
        attribute_number=columns.attribute_number[entries],
        **{name: getattr(columns, name)[rows] for name in TEXT_COLUMNS},
    )


def ndjson(history: History) -> Iterator[str]:
    """One JSON message a line, items first: what `rankstream` and the HTTP gateway take."""
    for item in history.items:
        yield item.update().model_dump_json()
    for row in range(len(history.columns)):
        yield json.dumps(event_at(history.columns, row).model_dump(mode="json"))
