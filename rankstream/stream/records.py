"""Bytes of the records that the features service writes, and of those it reads back."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.contracts.columns import EventColumns, Refusal
from rankstream.contracts.dead_letters import (
    PROTOBUF_TYPE,
    REASON_CHARACTERS_MAX,
    kept_bytes,
    kept_headers,
)
from rankstream.contracts.labels import PROVISIONAL, LabelChange, LabelState, Unmatched
from rankstream.contracts.record import Record
from rankstream.errors import InvalidBatch, InvalidInput
from rankstream.features.deltas import Deltas, Entity, distinct
from rankstream.features.rows import TOTALS
from rankstream.pb import events_pb2 as pb
from rankstream.sessions import ClosedSession

Ints = npt.NDArray[np.int64]

UNMATCHED_CODE = "unmatched"
_SOURCE = "features"


class _Dictionary:
    """Strings of one record, each once; number 0 is ""."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"": 0}

    def column(self, texts: Iterable[str]) -> Ints:
        """The number of each."""
        numbers = self.numbers
        number_of = numbers.setdefault
        return np.array([number_of(text, len(numbers)) for text in texts], np.int64)

    def renumbered(self, strings: Sequence[str], *columns: npt.NDArray[Any]) -> list[Ints]:
        """Columns of numbers of `strings`, all different, as numbers of this new dictionary."""
        assert len(self.numbers) == 1, len(self.numbers)
        used = distinct(len(strings), *columns)
        used = used[used > 0]
        number = np.zeros(len(strings), np.int64)
        number[used] = np.arange(1, len(used) + 1)
        texts = (strings[old] for old in used.tolist())
        self.numbers.update(zip(texts, itertools.count(1), strict=False))
        return [number[column] for column in columns]


def _table(states: Sequence[LabelState]) -> Ints:
    """Label states, shape (n, 4)."""
    flat = itertools.chain.from_iterable(states)
    return np.fromiter(flat, np.int64, 4 * len(states)).reshape(-1, 4)


def encode_labels(
    columns: EventColumns,
    opened: npt.NDArray[np.intp],
    changes: Sequence[LabelChange],
    *,
    partition: int,
    first_offset: int,
    offset: int,
    watermark_ms: int,
) -> bytes:
    """LabelBatch of what the records from `first_offset` up to `offset` did to labels.

    Args:
        columns: events, of which the rows `opened` are impressions that opened a label.
        changes: all others, later.
    """
    dictionary = _Dictionary()
    named = dictionary.renumbered(
        columns.strings,
        *(
            c[opened].astype(np.int64)
            for c in (columns.user_id, columns.item_id, columns.request_id)
        ),
    )
    keys, times, positions, _, old, new = zip(*changes, strict=True) if changes else ((),) * 6
    for place, part in enumerate((0, 2, 1)):
        more = dictionary.column(key[part] for key in keys)
        named[place] = np.concatenate([named[place], more])
    before = np.zeros((len(opened) + len(changes), 4), np.int64)
    after = np.zeros_like(before)
    after[: len(opened), 0] = PROVISIONAL
    if changes:
        before[len(opened) :], after[len(opened) :] = _table(old), _table(new)
    view = pb.LabelBatchView(
        source_partition=partition,
        first_offset=first_offset,
        source_offset=offset,
        user_id=_bytes(named[0], "<u4"),
        item_id=_bytes(named[1], "<u4"),
        request_id=_bytes(named[2], "<u4"),
        impression_time_ms=_bytes(np.append(columns.event_time_ms[opened], times), "<i8"),
        position=_bytes(np.append(columns.position[opened], positions), "<i4"),
        watermark_ms=watermark_ms,
    )
    for column, (name, dtype) in enumerate(_LABEL_STATE):
        setattr(view, f"old_{name}", _bytes(before[:, column], dtype))
        setattr(view, f"new_{name}", _bytes(after[:, column], dtype))
    view.strings.extend(dictionary.numbers)
    return view.SerializeToString()


# A status below 128 is one byte, as a varint too.
_LABEL_STATE = (("status", "u1"), ("clicked", "<u4"), ("purchased", "<u4"), ("value_micros", "<i8"))
_DELTA_AMOUNTS = tuple((name, "<i8" if name.endswith("_micros") else "<i4") for name in TOTALS)
_DELTA_SIZES = {"key": 4, "event_time_ms": 8}
_DELTA_SIZES |= {name: np.dtype(dtype).itemsize for name, dtype in _DELTA_AMOUNTS}


def _bytes(column: npt.NDArray[Any], dtype: str) -> bytes:
    return column.astype(dtype).tobytes()


def encode_updates(deltas: Deltas, *, partition: int, offset: int) -> bytes:
    """FeatureUpdates of the records up to `offset`, for one target partition."""
    view = pb.FeatureUpdatesView(
        source_partition=partition,
        source_offset=offset,
        strings=deltas.strings,
        entity=deltas.entity.tobytes(),
        key=_bytes(deltas.key, "<u4"),
        event_time_ms=_bytes(deltas.time_ms, "<i8"),
    )
    for column, (name, dtype) in enumerate(_DELTA_AMOUNTS):
        setattr(view, name, _bytes(deltas.amounts[:, column], dtype))
    return view.SerializeToString()


@dataclass(frozen=True, eq=False)
class Updates:
    """FeatureUpdates records end to end."""

    source: list[tuple[int, int]]  # partition and offset of each record; (-1, -1) if it is invalid
    deltas: Deltas  # of all valid ones
    record: npt.NDArray[np.intp]  # which record each delta is of, shape (n,)
    invalid: dict[int, InvalidBatch]  # by place of the record


def decode_updates(records: Sequence[bytes]) -> Updates:
    """FeatureUpdates records, of which those are invalid whose columns disagree."""
    source, invalid = [(-1, -1)] * len(records), dict[int, InvalidBatch]()
    views, places, strings, first_string = [], list[int](), list[str](), list[int]()
    for place, record in enumerate(records):
        try:
            view = _updates(record)
        except InvalidBatch as error:
            invalid[place] = error
            continue
        source[place] = view.source_partition, view.source_offset
        views.append(view)
        places.append(place)
        first_string.append(len(strings))
        strings += view.strings

    def column(name: str, dtype: str) -> npt.NDArray[Any]:
        return np.frombuffer(b"".join([getattr(view, name) for view in views]), dtype)

    sizes = [len(view.entity) for view in views]
    amounts = np.empty((sum(sizes), len(TOTALS)), np.int64)
    for number, (name, dtype) in enumerate(_DELTA_AMOUNTS):
        amounts[:, number] = column(name, dtype)
    deltas = Deltas(
        strings,
        column("entity", "u1"),
        column("key", "<u4") + np.repeat(np.array(first_string, np.int64), sizes),
        column("event_time_ms", "<i8"),
        amounts,
    )
    return Updates(source, deltas, np.repeat(np.array(places, np.intp), sizes), invalid)


def _updates(record: bytes) -> pb.FeatureUpdatesView:
    """A FeatureUpdates record whose columns agree.

    Raises: InvalidBatch if it is none.
    """
    try:
        view = pb.FeatureUpdatesView.FromString(record)
    except DecodeError as error:
        raise InvalidBatch(
            f"invalid_batch: record of {len(record)} bytes is not FeatureUpdates: {error}."
            " Not folded. Only the features service may write to this topic."
        ) from None
    n, strings = len(view.entity), len(view.strings)
    lengths = {name: len(getattr(view, name)) / size for name, size in _DELTA_SIZES.items()}
    key = np.frombuffer(view.key, "<u4") if lengths["key"] == n else np.zeros(0, np.uint32)
    if set(lengths.values()) != {n} or (n and int(key.max()) >= strings):
        raise InvalidBatch(
            f"invalid_batch: FeatureUpdates with columns of lengths {lengths}, {n} entities and"
            f" {strings} strings. Not folded. Only the features service may write here."
        )
    if not set(view.entity) <= set(Entity):
        raise InvalidBatch(
            f"invalid_batch: FeatureUpdates of entities {sorted(set(view.entity))}"
            f" (known: {list(map(int, Entity))}). Not folded. Upgrade this worker."
        )
    return view


def encode_session(session: ClosedSession, *, partition: int, offset: int) -> bytes:
    """Session record of a session that the record at `offset` closed."""
    return pb.Session(
        source_partition=partition,
        source_offset=offset,
        user_id=session.user_id,
        start_ms=session.start_ms,
        end_ms=session.end_ms,
        events=session.events,
        impressions=session.impressions,
        clicks=session.clicks,
        purchases=session.purchases,
    ).SerializeToString(deterministic=True)


def dead_record(record: Record, error: InvalidInput) -> bytes:
    """DeadLetter of a whole record that could not be folded."""
    return _dead(record, error.code, str(error), ())


def dead_rows(record: Record, refusals: Sequence[Refusal]) -> bytes:
    """DeadLetter of the refused rows of one record: its bytes, and why the first was refused."""
    first = refusals[0]
    more = f" (and {len(refusals) - 1} more rows)" if len(refusals) > 1 else ""
    reason = f"row {first.row}: {first.reason}{more}"
    return _dead(record, first.code, reason, [refusal.row for refusal in refusals])


def _dead(record: Record, code: str, reason: str, rows: Sequence[int]) -> bytes:
    original, cut = kept_bytes(record.value or b"")
    return pb.DeadLetter(
        dead_letter_id=f"{record.topic}/{record.partition}/{record.offset}",
        code=code,
        reason=reason[:REASON_CHARACTERS_MAX] + cut,
        original=original,
        original_key=record.key,
        source=_SOURCE,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        rows=rows,
        refused_ms=record.timestamp_ms,
        content_type=PROTOBUF_TYPE,
        events=len(rows) or 1,
        headers=kept_headers(record.headers),
    ).SerializeToString(deterministic=True)


def dead_unmatched(
    given_up: Iterable[Unmatched], *, partition: int, append_time_ms: int
) -> list[bytes]:
    """DeadLetters of feedback whose impression never came; each holds its event, alone."""
    return [_dead_unmatched(unmatched, partition, append_time_ms) for unmatched in given_up]


def _dead_unmatched(unmatched: Unmatched, partition: int, append_time_ms: int) -> bytes:
    (user, request, item), feedback = unmatched
    event = pb.EventBatch(
        strings=["", user, request, item],
        kind=[pb.Kind.Name(feedback.kind)],
        event_id=feedback.event_id,
        event_time_ms=[feedback.time_ms],
        user_id=[1],
        request_id=[2],
        item_id=[3],
        value=[feedback.value_micros / 1e6],
    )
    topic = topics.EVENTS.name
    return pb.DeadLetter(
        dead_letter_id=f"{topic}/{partition}/{feedback.offset}/{feedback.row}",
        code=UNMATCHED_CODE,
        reason=f"no impression of item {item!r} in request {request!r} came in time before"
        f" event_time_ms={feedback.time_ms}",
        original=event.SerializeToString(deterministic=True),
        original_key=user.encode(),
        source=_SOURCE,
        topic=topic,
        partition=partition,
        offset=feedback.offset,
        rows=[feedback.row],
        refused_ms=append_time_ms,
        content_type=PROTOBUF_TYPE,
        events=1,
    ).SerializeToString(deterministic=True)
