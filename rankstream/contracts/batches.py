"""EventBatch records to columns: what the stream reads, many records at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from rankstream.contracts.columns import EventColumns, Ints
from rankstream.errors import InvalidBatch
from rankstream.pb import events_pb2 as pb

EVENTS_PER_BATCH_MAX = 10_000
TEXT_COLUMNS = (
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
_COLUMN_DTYPES: Mapping[str, str] = {
    **dict.fromkeys(TEXT_COLUMNS, "<u4"),
    "position": "<i4",
    "value": "<f8",
}
_ATTRIBUTE_DTYPES: Mapping[str, str] = {
    "attribute_row": "<u4",
    "attribute_name": "<u4",
    "attribute_text": "<u4",
    "attribute_number": "<f8",
}


@dataclass(frozen=True)
class Batches:
    """Events of many records, in order, over one dictionary.

    `events[k]` is how many are of record k: none if the record is in `invalid`.
    """

    columns: EventColumns
    events: list[int]
    invalid: Mapping[int, InvalidBatch]


def decode_batches(records: Sequence[bytes]) -> Batches:
    """The columns of many EventBatch records, each packed column read as the bytes that it is."""
    views: list[Any] = []
    invalid: dict[int, InvalidBatch] = {}
    for number, record in enumerate(records):
        try:
            views.append(_view(record))
        except InvalidBatch as error:
            invalid[number] = error
    columns, broken = _joined(views)
    if broken:
        # Rare: find the record that points outside its dictionary, and go on without it.
        valid = [number for number in range(len(records)) if number not in invalid]
        for number, view in zip(valid, views, strict=True):
            _, reason = _joined([view])
            if reason:
                invalid[number] = InvalidBatch(f"invalid_batch: {reason} Sent to events.dead.")
        views = [v for number, v in zip(valid, views, strict=True) if number not in invalid]
        columns, _ = _joined(views)
    sizes = iter(len(view.kind) for view in views)
    events = [0 if number in invalid else next(sizes) for number in range(len(records))]
    return Batches(columns, events, invalid)


def _view(record: bytes) -> Any:
    """The record's columns as bytes, of lengths that agree."""
    try:
        view = pb.EventBatchView.FromString(record)
    except DecodeError as error:
        raise InvalidBatch(
            f"invalid_batch: record of {len(record)} bytes is not an EventBatch: {error}."
            " Sent to events.dead. Encode it with proto/rankstream/pb/events.proto."
        ) from None
    n = len(view.kind)
    if not 0 < n <= EVENTS_PER_BATCH_MAX:
        raise InvalidBatch(
            f"invalid_batch: {n} events in one record (limit 1..{EVENTS_PER_BATCH_MAX})."
            " Sent to events.dead. Split the batch."
        )
    for name, size in _REQUIRED_SIZES:
        if len(getattr(view, name)) != size * n:
            raise _ragged(name, len(getattr(view, name)), n)
    for name, size in _COLUMN_SIZES:
        got = len(getattr(view, name))
        if got and got != size * n:
            raise _ragged(name, got, n)
    entries = len(view.attribute_row)
    for name, size in _ATTRIBUTE_SIZES:
        if 4 * len(getattr(view, name)) != size * entries:
            raise InvalidBatch(
                f"invalid_batch: attribute columns differ in length: {name} has"
                f" {len(getattr(view, name))} bytes, attribute_row {entries}. Sent to events.dead."
                " Give each attribute a row, a name, a text and a number."
            )
    return view


def _ragged(name: str, got: int, n: int) -> InvalidBatch:
    return InvalidBatch(
        f"invalid_batch: column {name} has {got} bytes, which does not fit the batch ({n})."
        " Sent to events.dead. Give every column one entry per event, or none."
    )


def _joined(views: Sequence[Any]) -> tuple[EventColumns, str]:
    """All columns end to end; what is wrong with an index, if one is."""
    sizes = [len(view.kind) for view in views]
    strings: list[str] = []
    firsts: list[int] = []
    for view in views:
        firsts.append(len(strings))
        strings += view.strings or _NO_STRINGS
    known: dict[str, int] = {"": 0}
    # `len(known)` is taken first: a new string gets the next number.
    numbers = np.array([known.setdefault(text, len(known)) for text in strings], np.uint32)
    bounds = np.diff([*firsts, len(strings)])
    rows = np.cumsum([0, *sizes])
    reason = ""
    if any(strings[first] for first in firsts):
        reason = "strings[0] is not empty. Keep index 0 for absent text."

    def text(name: str, counts: Sequence[int] | Ints, columns: npt.NDArray[np.uint32]) -> Any:
        nonlocal reason
        if not columns.any():
            return np.zeros(len(columns), np.uint32)
        if (columns >= np.repeat(bounds, counts)).any():
            reason = f"{name} points to string {columns.max()} of {bounds.min()}. Mend it."
            return np.zeros(len(columns), np.uint32)
        return numbers[columns + np.repeat(firsts, counts)]

    found: dict[str, Any] = {}
    for name in _COLUMN_DTYPES:
        size = _SIZE_OF[name]
        joined = b"".join(
            [getattr(view, name) or bytes(size * n) for view, n in zip(views, sizes, strict=True)]
        )
        column = np.frombuffer(joined, _COLUMN_DTYPES[name])
        found[name] = text(name, sizes, column) if name in TEXT_COLUMNS else column
    entries = [len(view.attribute_row) // 4 for view in views]
    for name, dtype in _ATTRIBUTE_DTYPES.items():
        column = np.frombuffer(b"".join([getattr(view, name) for view in views]), dtype)
        if name == "attribute_row" and len(column):
            if (column >= np.repeat(sizes, entries)).any():
                reason = f"an attribute belongs to row {column.max()} of {min(sizes)}. Mend it."
            column = (column + np.repeat(rows[:-1], entries)).astype(np.uint32)
        elif name != "attribute_number" and len(column):
            column = text(name, entries, column)
        found[name] = column
    return EventColumns(
        strings=list(known),
        kind=np.frombuffer(b"".join([view.kind for view in views]), np.uint8),
        event_id=b"".join([view.event_id for view in views]),
        event_time_ms=np.frombuffer(b"".join([view.event_time_ms for view in views]), "<i8"),
        **found,
    ), reason


_NO_STRINGS = ("",)
_REQUIRED_SIZES = (("event_id", 16), ("event_time_ms", 8))
_SIZE_OF = {name: np.dtype(dtype).itemsize for name, dtype in _COLUMN_DTYPES.items()}
_COLUMN_SIZES = tuple(_SIZE_OF.items())
_ATTRIBUTE_SIZES = tuple(
    (name, np.dtype(dtype).itemsize) for name, dtype in _ATTRIBUTE_DTYPES.items()
)


def encode_rows(columns: EventColumns, rows: npt.NDArray[np.intp]) -> bytes:
    """An EventBatch record of some events, which must all belong to one partition.

    Writes through EventBatchView, whose columns are bytes: no object per event.
    """
    chosen = np.isin(columns.attribute_row, rows)
    place = np.zeros(len(columns), np.uint32)
    place[rows] = np.arange(len(rows), dtype=np.uint32)
    text = [getattr(columns, name)[rows] for name in TEXT_COLUMNS]
    text += [columns.attribute_name[chosen], columns.attribute_text[chosen]]
    # 0 first, so that strings[0] stays "".
    used, code = np.unique(np.concatenate([[np.uint32(0)], *text]), return_inverse=True)
    parts = np.split(code[1:].astype("<u4"), np.cumsum([len(column) for column in text])[:-1])
    view = pb.EventBatchView(strings=[columns.strings[index] for index in used.tolist()])
    view.kind = columns.kind[rows].tobytes()
    ids = np.frombuffer(columns.event_id, np.uint8).reshape(-1, 16)
    view.event_id = ids[rows].tobytes()
    view.event_time_ms = columns.event_time_ms[rows].astype("<i8").tobytes()
    for name, column in zip(TEXT_COLUMNS, parts, strict=False):
        if column.any():
            setattr(view, name, column.tobytes())
    for name in ("position", "value"):
        numbers = getattr(columns, name)[rows]
        if numbers.any():
            setattr(view, name, numbers.astype(_COLUMN_DTYPES[name]).tobytes())
    if chosen.any():
        view.attribute_row = place[columns.attribute_row[chosen]].tobytes()
        view.attribute_name, view.attribute_text = parts[-2].tobytes(), parts[-1].tobytes()
        view.attribute_number = columns.attribute_number[chosen].astype("<f8").tobytes()
    return view.SerializeToString()
