"""Rows of `events` and `served`, by column; and the list of the lake's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from rankstream import topics
from rankstream.contracts.batches import TEXT_COLUMNS, decode_batches
from rankstream.contracts.codec import attributes_at
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.record import Record
from rankstream.pb import events_pb2 as pb
from services.features.lake_columns import (
    LOG,
    PARTITION_BY,
    LakeTable,
    Rows,
    log_columns,
    parsed,
    table_of,
    texts_of,
)
from services.features.lake_labels import LABELS, label_changes
from services.features.lake_labels import PARTITION_BY as LABELS_PARTITION_BY

EVENTS: Final = pa.schema(
    [
        *LOG,
        ("event_id", pa.binary()),  # 16 bytes
        ("kind", pa.int8()),  # contracts.columns.Kind; ticks included
        ("event_time_ms", pa.int64()),
        *((name, pa.string()) for name in TEXT_COLUMNS),
        ("position", pa.int32()),
        ("value", pa.float64()),
        ("attributes", pa.string()),  # JSON object, or empty
    ]
)
_SLATE_FIELDS: Final = {
    "request_id": pa.string(),
    "user_id": pa.string(),
    "served_time_ms": pa.int64(),
    "spec_id": pa.string(),
    "model_id": pa.string(),
    "index_id": pa.string(),
    "policy": pa.string(),
    "experiment_id": pa.string(),
    "experiment_version": pa.int32(),
    "variant": pa.string(),
    "candidates": pa.int32(),
    "device": pa.string(),
    "query": pa.string(),
    "location": pa.string(),
}
_SLOT_FIELDS: Final = {
    "item_id": pa.string(),
    "category": pa.string(),
    "logit": pa.float32(),
    "pctr": pa.float32(),
    "propensity": pa.float64(),
}
_STAMPS: Final = (
    "user_stamp",
    "item_stamp",
    "category_stamp",
    "query_stamp",
    "location_stamp",
)
_STAMP: Final = pa.struct(
    [("partition", pa.int32()), ("offset", pa.int64()), ("items_offset", pa.int64())]
)
SERVED: Final = pa.schema(
    [
        *LOG,  # `row` is the slot
        *_SLATE_FIELDS.items(),
        *_SLOT_FIELDS.items(),
        ("features", pa.list_(pa.float32())),
        *((name, _STAMP) for name in _STAMPS),
        ("degraded", pa.list_(pa.string())),
    ]
)


def event_rows(records: Sequence[Record]) -> Rows:
    """Rows of `events`, one per event, as produced: duplicates, late and refused ones included."""
    batches = decode_batches([record.value or b"" for record in records])
    found = batches.columns
    # The bytes of those left out are in events.dead.
    kept = [number for number in range(len(records)) if number not in batches.invalid]
    lengths = [batches.events[number] for number in kept]
    ids = pa.Array.from_buffers(pa.binary(16), len(found), [None, pa.py_buffer(found.event_id)])
    columns: dict[str, object] = {
        **log_columns([records[number] for number in kept], lengths),
        "event_id": ids.cast(pa.binary()),
        "kind": found.kind.astype("i1"),
        "event_time_ms": found.event_time_ms,
        "position": found.position,
        "value": found.value,
        "attributes": _attributes(found),
        **{name: texts_of([found.strings], [getattr(found, name)]) for name in TEXT_COLUMNS},
    }
    return Rows(table_of(columns, EVENTS), len(batches.invalid))


def _attributes(columns: EventColumns) -> list[str]:
    texts = [""] * len(columns.kind)
    for row in np.unique(columns.attribute_row).tolist():
        texts[row] = json.dumps(attributes_at(columns, row), sort_keys=True)
    return texts


def served_rows(records: Sequence[Record]) -> Rows:
    """Rows of `served`, one per slot."""
    slots = parsed(records, pb.ServedSlate)
    slates = [slate for _, slate in slots]
    lengths = [len(slate.item_id) for slate in slates]
    columns: dict[str, object] = {
        **log_columns([record for record, _ in slots], lengths),
        **{
            name: [getattr(s, name) for s, n in zip(slates, lengths, strict=True) for _ in range(n)]
            for name in _SLATE_FIELDS
        },
        **{
            name: [value for s in slates for value in _padded(getattr(s, name), len(s.item_id))]
            for name in _SLOT_FIELDS
        },
        "features": [row for s in slates for row in _vectors(s)],
        **{
            name: [_stamp(getattr(s, name)) for s in slates for _ in s.item_id]
            for name in ("user_stamp", "query_stamp", "location_stamp")
        },
        "item_stamp": [stamp for s in slates for stamp in _stamps(s.item_stamp, s)],
        "category_stamp": [stamp for s in slates for stamp in _stamps(s.category_stamp, s)],
        "degraded": [list(s.degraded) for s in slates for _ in s.item_id],
    }
    return Rows(table_of(columns, SERVED), len(records) - len(slots))


def _padded(column: Sequence[object], n: int) -> list[object]:
    """A slate's column; a slot that it does not reach is null."""
    return [*column[:n], *[None] * (n - len(column))]


def _vectors(slate: pb.ServedSlate) -> list[object]:
    n = len(slate.item_id)
    if not n or not slate.features or len(slate.features) % (4 * n):
        return [None] * n
    return list(np.frombuffer(slate.features, "<f4").reshape(n, -1))


def _stamp(stamp: pb.Stamp) -> dict[str, int]:
    return {
        "partition": stamp.partition,
        "offset": stamp.offset,
        "items_offset": stamp.items_offset,
    }


def _stamps(stamps: Sequence[pb.Stamp], slate: pb.ServedSlate) -> list[object]:
    return _padded([_stamp(stamp) for stamp in stamps], len(slate.item_id))


TICK: Final = int(Kind.TICK)
TABLES: Final = (
    LakeTable(topics.EVENTS.name, EVENTS, event_rows),
    LakeTable(topics.LABELS.name, LABELS, label_changes, LABELS_PARTITION_BY, upsert=True),
    LakeTable(topics.SERVED.name, SERVED, served_rows),
)
__all__ = ["PARTITION_BY", "TABLES", "TICK", "event_rows", "served_rows"]
