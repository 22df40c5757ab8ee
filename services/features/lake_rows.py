"""Records of the log as rows of the lake's tables, by column.

Every row says where it stands in the log: partition, offset, row, and append_time_ms, the broker's
clock. `date` and `hour` (UTC) are those of the append, so that late events never touch old
partitions of a table; event time is a column.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import attributes_at, decode_batch
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.errors import InvalidBatch
from rankstream.pb import events_pb2 as pb

PARTITION_BY: Final = ("date", "hour")

_LOG: Final = (
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("row", pa.int32()),
    ("append_time_ms", pa.int64()),
    ("date", pa.string()),
    ("hour", pa.int32()),
)
_EVENT_TEXTS: Final = (
    "user_id",
    "item_id",
    "request_id",
    "category",
    "currency",
    "session_id",
    "device",
    "query",
    "location",
)
EVENTS: Final = pa.schema(
    [
        *_LOG,
        ("event_id", pa.binary()),  # 16 bytes
        ("kind", pa.int8()),  # contracts.columns.Kind; ticks included
        ("event_time_ms", pa.int64()),
        *((name, pa.string()) for name in _EVENT_TEXTS),
        ("position", pa.int32()),
        ("value", pa.float64()),
        ("attributes", pa.string()),  # JSON object, or empty
    ]
)
_LABEL_TEXTS: Final = ("user_id", "item_id", "request_id")
_LABEL_NUMBERS: Final = (
    "impression_time_ms",
    "position",
    "old_status",
    "new_status",
    "old_clicked",
    "new_clicked",
    "old_purchased",
    "new_purchased",
    "old_value_micros",
    "new_value_micros",
)
LABELS: Final = pa.schema(
    [
        *_LOG,
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
        ("watermark_ms", pa.int64()),
        *((name, pa.string()) for name in _LABEL_TEXTS),
        *((name, pa.int64()) for name in _LABEL_NUMBERS),
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
_STAMPS: Final = ("user_stamp", "item_stamp", "category_stamp")
_STAMP: Final = pa.struct(
    [("partition", pa.int32()), ("offset", pa.int64()), ("items_offset", pa.int64())]
)
SERVED: Final = pa.schema(
    [
        *_LOG,  # `row` is the slot
        *_SLATE_FIELDS.items(),
        *_SLOT_FIELDS.items(),
        ("features", pa.list_(pa.float32())),
        *((name, _STAMP) for name in _STAMPS),
        ("degraded", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Rows:
    """Rows of some records; `skipped` of the records could not be decoded."""

    table: pa.Table
    skipped: int


def _log_columns(records: Sequence[Record], lengths: Sequence[int]) -> dict[str, pa.Array]:
    """The log's own columns, for `lengths[i]` rows of record i."""
    append = np.repeat(np.array([r.timestamp_ms for r in records], np.int64), lengths)
    dates = append.astype("datetime64[ms]").astype("datetime64[D]").astype(str)
    rows = [np.zeros(0, np.int64), *(np.arange(length) for length in lengths)]
    return {
        "partition": np.repeat(np.array([r.partition for r in records], np.int32), lengths),
        "offset": np.repeat(np.array([r.offset for r in records], np.int64), lengths),
        "row": np.concatenate(rows).astype(np.int32),
        "append_time_ms": append,
        "date": pa.array(dates, pa.string()),
        "hour": (append // 3_600_000 % 24).astype(np.int32),
    }


def _texts(dictionaries: Sequence[Sequence[str]], columns: Sequence[Sequence[int]]) -> pa.Array:
    """Text columns of several records, each with its own dictionary, as one array."""
    starts = np.cumsum([0, *(len(strings) for strings in dictionaries)])
    index = [
        np.asarray(column, np.int64) + start for column, start in zip(columns, starts, strict=False)
    ]
    strings = pa.array([text for strings in dictionaries for text in strings], pa.string())
    return strings.take(pa.array(np.concatenate(index or [np.zeros(0, np.int64)])))


def _table(columns: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    arrays = [
        column.cast(field.type)
        if isinstance(column := columns[field.name], pa.Array | pa.ChunkedArray)
        else pa.array(column, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def event_rows(records: Sequence[Record]) -> Rows:
    """Rows of `events`, one per event, as produced: duplicates, late and refused ones included."""
    decoded: list[tuple[Record, EventColumns]] = []
    for record in records:
        try:
            decoded.append((record, decode_batch(record.value or b"")))
        except InvalidBatch:
            continue  # its bytes are in events.dead
    batches = [columns for _, columns in decoded]
    lengths = [len(columns.kind) for columns in batches]

    def joined(name: str, dtype: str) -> object:
        return np.concatenate([getattr(b, name) for b in batches] or [np.zeros(0)]).astype(dtype)

    def texts(name: str) -> pa.Array:
        return _texts([b.strings for b in batches], [getattr(b, name) for b in batches])

    columns: dict[str, object] = {
        **_log_columns([record for record, _ in decoded], lengths),
        "event_id": [
            b.event_id[16 * row : 16 * row + 16] for b in batches for row in range(len(b.kind))
        ],
        "kind": joined("kind", "i1"),
        "event_time_ms": joined("event_time_ms", "i8"),
        "position": joined("position", "i4"),
        "value": joined("value", "f8"),
        "attributes": [text for b in batches for text in _attributes(b)],
        **{name: texts(name) for name in _EVENT_TEXTS},
    }
    return Rows(_table(columns, EVENTS), len(records) - len(decoded))


def _attributes(columns: EventColumns) -> list[str]:
    texts = [""] * len(columns.kind)
    for row in np.unique(columns.attribute_row).tolist():
        texts[row] = json.dumps(attributes_at(columns, row), sort_keys=True)
    return texts


M = TypeVar("M", pb.LabelBatch, pb.ServedSlate)


def _parsed(records: Sequence[Record], message: type[M]) -> list[tuple[Record, M]]:
    parsed = []
    for record in records:
        try:
            parsed.append((record, message.FromString(record.value or b"")))
        except DecodeError:
            continue
    return parsed


def label_rows(records: Sequence[Record]) -> Rows:
    """Rows of `labels`, one per change of a label."""
    parsed = _parsed(records, pb.LabelBatch)
    batches = [batch for _, batch in parsed]
    lengths = [len(batch.user_id) for batch in batches]
    columns: dict[str, object] = {
        **_log_columns([record for record, _ in parsed], lengths),
        **{
            name: np.repeat(np.array([getattr(b, name) for b in batches], np.int64), lengths)
            for name in ("source_partition", "source_offset", "watermark_ms")
        },
        **{
            name: _texts([b.strings for b in batches], [getattr(b, name) for b in batches])
            for name in _LABEL_TEXTS
        },
        **{name: [n for b in batches for n in getattr(b, name)] for name in _LABEL_NUMBERS},
    }
    return Rows(_table(columns, LABELS), len(records) - len(parsed))


def served_rows(records: Sequence[Record]) -> Rows:
    """Rows of `served`, one per slot."""
    parsed = _parsed(records, pb.ServedSlate)
    slates = [slate for _, slate in parsed]
    lengths = [len(slate.item_id) for slate in slates]
    columns: dict[str, object] = {
        **_log_columns([record for record, _ in parsed], lengths),
        **{
            name: [getattr(s, name) for s, n in zip(slates, lengths, strict=True) for _ in range(n)]
            for name in _SLATE_FIELDS
        },
        **{
            name: [value for s in slates for value in _padded(getattr(s, name), len(s.item_id))]
            for name in _SLOT_FIELDS
        },
        "features": [row for s in slates for row in _vectors(s)],
        "user_stamp": [_stamp(s.user_stamp) for s in slates for _ in s.item_id],
        "item_stamp": [stamp for s in slates for stamp in _stamps(s.item_stamp, s)],
        "category_stamp": [stamp for s in slates for stamp in _stamps(s.category_stamp, s)],
        "degraded": [list(s.degraded) for s in slates for _ in s.item_id],
    }
    return Rows(_table(columns, SERVED), len(records) - len(parsed))


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


@dataclass(frozen=True)
class LakeTable:
    """One table of the lake: the topic that it keeps, and how."""

    topic: str
    schema: pa.Schema
    rows_of: Callable[[Sequence[Record]], Rows]


TABLES: Final = (
    LakeTable(topics.EVENTS.name, EVENTS, event_rows),
    LakeTable(topics.LABELS.name, LABELS, label_rows),
    LakeTable(topics.SERVED.name, SERVED, served_rows),
)
TICK: Final = int(Kind.TICK)
