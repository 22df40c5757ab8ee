"""What the tables of the lake have in common: the log's own columns, and how columns are made.

Every row says where it stands in the log: partition, offset, row, and append_time_ms, the broker's
clock. `date` and `hour` (UTC) are those of the append, so that late events never touch old
partitions of a table; event time is a column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError

from rankstream.adapters.kafka import Record
from rankstream.pb import events_pb2 as pb

PARTITION_BY: Final = ("date", "hour")

LOG: Final = (
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("row", pa.int32()),
    ("append_time_ms", pa.int64()),
    ("date", pa.string()),
    ("hour", pa.int32()),
)


@dataclass(frozen=True)
class Rows:
    """Rows of some records; `skipped` of the records could not be decoded."""

    table: pa.Table
    skipped: int


@dataclass(frozen=True)
class LakeTable:
    """One table of the lake: the topic that it keeps, and how.

    `upsert` tables hold the newest state of each label (see `lake_labels`); the others every row.
    """

    topic: str
    schema: pa.Schema
    rows_of: Callable[[Sequence[Record]], Rows]
    partition_by: tuple[str, ...] = PARTITION_BY
    upsert: bool = False


def log_columns(records: Sequence[Record], lengths: Sequence[int]) -> dict[str, pa.Array]:
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


def texts_of(dictionaries: Sequence[Sequence[str]], columns: Sequence[Sequence[int]]) -> pa.Array:
    """Text columns of several records, each with its own dictionary, as one array."""
    starts = np.cumsum([0, *(len(strings) for strings in dictionaries)])
    index = [
        np.asarray(column, np.int64) + start for column, start in zip(columns, starts, strict=False)
    ]
    strings = pa.array([text for strings in dictionaries for text in strings], pa.string())
    return strings.take(pa.array(np.concatenate(index or [np.zeros(0, np.int64)])))


def table_of(columns: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    """The columns that the schema names, in its order and types."""
    arrays = [
        column.cast(field.type)
        if isinstance(column := columns[field.name], pa.Array | pa.ChunkedArray)
        else pa.array(column, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


M = TypeVar("M", pb.LabelBatch, pb.ServedSlate)


def parsed(records: Sequence[Record], message: type[M]) -> list[tuple[Record, M]]:
    """Each record that is such a message, and the message."""
    found = []
    for record in records:
        try:
            found.append((record, message.FromString(record.value or b"")))
        except DecodeError:
            continue
    return found
