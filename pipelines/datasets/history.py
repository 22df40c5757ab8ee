"""A history: past events and items of one public log, ready for Kafka or for a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import numpy as np

from rankstream.contracts.batches import encode_rows
from rankstream.contracts.codec import event_at
from rankstream.contracts.columns import EventColumns
from rankstream.contracts.events import ItemUpdate
from rankstream.contracts.ids import partition_of

EVENTS_PER_BATCH: Final = 200
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

    def update(self) -> ItemUpdate:
        """As the contract that producers send."""
        return ItemUpdate(
            item_id=self.item_id,
            category=self.category,
            title=self.title,
            updated_ms=self.updated_ms,
            attributes=dict(self.attributes),
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
    digests = b"".join(hashlib.sha1(prefix + name.encode()).digest()[:16] for name in names)
    ids = np.frombuffer(digests, np.uint8).reshape(-1, 16).copy()
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
        for start in range(0, len(mine), EVENTS_PER_BATCH):
            rows = mine[start : start + EVENTS_PER_BATCH]
            first_ms = int(columns.event_time_ms[rows[0]])
            found.append(Batch(partition, first_ms, len(rows), encode_rows(columns, rows)))
    return sorted(found, key=lambda batch: (batch.first_ms, batch.partition))


def ndjson(history: History) -> Iterator[str]:
    """One JSON message a line, items first: what `rankstream` and the HTTP gateway take."""
    for item in history.items:
        yield item.update().model_dump_json()
    for row in range(len(history.columns)):
        yield json.dumps(event_at(history.columns, row).model_dump(mode="json"))
