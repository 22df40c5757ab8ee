"""Bytes to contract and back: identity on what fits, InvalidBatch on everything else."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rankstream.contracts.batches import EVENTS_PER_BATCH_MAX
from rankstream.contracts.codec import (
    decode_batch,
    decode_message,
    encode_batch,
    encode_item,
    encode_tick,
    event_at,
)
from rankstream.contracts.columns import EventColumns, Kind, TimeLimits, refuse
from rankstream.contracts.events import Event, ItemUpdate, Visit
from rankstream.errors import (
    InvalidBatch,
    InvalidEvent,
    InvalidInput,
    MalformedEvent,
    UnknownKind,
)
from rankstream.pb import events_pb2 as pb

EVENT: TypeAdapter[Event] = TypeAdapter(Event)
LIMITS = TimeLimits()
NOW_MS = 1_800_000_000_000

# Text that UTF-8 can hold: no lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=12)
ids = texts.filter(bool)
numbers = st.floats(min_value=-1e6, max_value=1e6)
attributes = st.dictionaries(ids, texts.filter(bool) | numbers, max_size=4)

common: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.uuids().map(str),
    "user_id": ids,
    "event_time_ms": st.integers(1, (1 << 62) - 1),
    "session_id": texts,
    "device": texts,
    "query": texts,
    "location": texts,
}
about_item = {**common, "item_id": ids, "category": st.text("abcé", max_size=12)}
feedback = {**about_item, "request_id": ids}


def of_kind(kind: str, strategies: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Event]:
    whole = st.fixed_dictionaries({"kind": st.just(kind), **strategies})
    return whole.map(EVENT.validate_python)


events = st.one_of(
    of_kind("impression", {**feedback, "position": st.integers(0, 9_999)}),
    of_kind("click", feedback),
    of_kind(
        "purchase",
        {
            **about_item,
            "request_id": texts,
            "value": st.floats(0, 1e9),
            "currency": st.sampled_from(["", "EUR"]),
        },
    ),
    of_kind("view", {**about_item, "request_id": texts, "value": st.floats(0, 1e9)}),
    of_kind("rate", {**about_item, "value": numbers}),
    of_kind("visit", common),
    of_kind("user_update", {**common, "attributes": attributes}),
    of_kind("context", {**common, "attributes": attributes}),
)
batches = st.lists(events, min_size=1, max_size=8)


def a_visit(number: int = 0) -> Visit:
    return Visit(event_id=str(UUID(int=number)), user_id="u", event_time_ms=NOW_MS)


def a_record(**columns: Any) -> pb.EventBatch:
    """One valid visit, with columns replaced."""
    batch = pb.EventBatch.FromString(encode_batch([a_visit()]))
    for name, value in columns.items():
        if name == "event_id":
            batch.event_id = value
            continue
        del getattr(batch, name)[:]
        getattr(batch, name).extend(value)
    return batch


@given(batches)
def test_encode_then_decode_is_identity(batch: list[Event]) -> None:
    columns = decode_batch(encode_batch(batch))

    assert len(columns) == len(batch)
    assert [event_at(columns, row) for row in range(len(batch))] == batch


@given(batches)
def test_what_fits_the_contract_is_not_refused(batch: list[Event]) -> None:
    columns = decode_batch(encode_batch(batch))
    far = TimeLimits(ahead_ms_max=1 << 62, behind_ms_max=1 << 62)

    assert refuse(columns, append_time_ms=NOW_MS, limits=far) == []


@given(events)
def test_json_of_an_event_decodes_to_the_event(event: Event) -> None:
    assert decode_message(event.model_dump_json().encode()) == event


@given(st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_invalid_batch(record: bytes) -> None:
    try:
        columns = decode_batch(record)
    except InvalidBatch:
        return
    refuse(columns, append_time_ms=NOW_MS, limits=LIMITS)


@given(batches, st.data())
def test_damaged_records_raise_nothing_but_invalid_batch(
    batch: list[Event], data: st.DataObject
) -> None:
    record = bytearray(encode_batch(batch))
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(record)))

    for damaged in (bytes(record), bytes(record[:cut])):
        try:
            columns = decode_batch(damaged)
        except InvalidBatch:
            continue
        refuse(columns, append_time_ms=NOW_MS, limits=LIMITS)
        _rows_are_events_or_refused(columns)


def _rows_are_events_or_refused(columns: EventColumns) -> None:
    for row in np.flatnonzero(np.isin(columns.kind, list(Kind))).tolist():
        try:
            event_at(columns, row)
        except InvalidEvent:
            continue


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace"))
)
def test_random_json_raises_nothing_but_invalid_events(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode_message(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_of_another_shape_raises_nothing_but_invalid_events(value: object) -> None:
    for body in (json.dumps(value), json.dumps({"kind": "click", "user_id": value})):
        with pytest.raises(InvalidEvent):
            decode_message(body.encode())


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MalformedEvent),
        (b"[]", MalformedEvent),
        (b"null", MalformedEvent),
        (b'{"kind":"click"', MalformedEvent),
        (b"[" * 5_000, MalformedEvent),
        (b'{"kind":"click","user_id":"\xff"}', MalformedEvent),
        (b"{}", UnknownKind),
        (b'{"kind":"applause"}', UnknownKind),
        (b'{"kind":"tick"}', UnknownKind),
        (b'{"kind":"visit"}', InvalidEvent),
    ],
)
def test_each_flaw_of_json_has_its_own_error(body: bytes, error: type[InvalidInput]) -> None:
    with pytest.raises(InvalidInput) as refused:
        decode_message(body)

    assert type(refused.value) is error


def test_ten_thousand_events_fit_a_record() -> None:
    batch = [a_visit(number) for number in range(EVENTS_PER_BATCH_MAX)]

    columns = decode_batch(encode_batch(batch))

    assert len(columns) == EVENTS_PER_BATCH_MAX
    assert event_at(columns, EVENTS_PER_BATCH_MAX - 1) == batch[-1]


def test_one_event_more_is_refused() -> None:
    batch = pb.EventBatch.FromString(encode_batch([a_visit()]))
    n = EVENTS_PER_BATCH_MAX + 1
    for name in ("kind", "event_time_ms", "user_id"):
        getattr(batch, name).extend(getattr(batch, name)[:] * (n - 1))
    batch.event_id = batch.event_id * n

    with pytest.raises(InvalidBatch, match=r"10001 events in one record"):
        decode_batch(batch.SerializeToString())


@pytest.mark.parametrize("kind", [0, 7, 99])
def test_a_row_of_unknown_kind_is_no_event(kind: int) -> None:
    columns = decode_batch(a_record(kind=[kind]).SerializeToString())

    with pytest.raises(UnknownKind, match=str(kind)):
        event_at(columns, 0)


def test_a_row_that_breaks_the_contract_is_no_event() -> None:
    columns = decode_batch(a_record(event_time_ms=[-1]).SerializeToString())

    with pytest.raises(InvalidEvent, match="greater than 0"):
        event_at(columns, 0)


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(InvalidBatch, match="0 events"):
        decode_batch(b"")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"event_id": b"short"}, "event_id has 5 bytes"),
        ({"event_time_ms": []}, "event_time_ms has 0 bytes"),
        ({"event_time_ms": [1, 2]}, "event_time_ms has 16 bytes"),
        ({"item_id": [0, 0]}, "item_id has 8 bytes"),
        ({"value": [1.0, 2.0]}, "value has 16 bytes"),
        ({"user_id": [9]}, "user_id points to string 9 of 2"),
        ({"strings": ["u", "v"]}, "not empty"),
        ({"attribute_row": [0]}, "attribute columns differ"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(
    columns: dict[str, Any], message: str
) -> None:
    record = a_record(**columns).SerializeToString()

    with pytest.raises(InvalidBatch, match=message):
        decode_batch(record)


@pytest.mark.parametrize(
    ("row", "name", "message"), [(7, 0, "belongs to row 7"), (0, 7, "attribute_name points to")]
)
def test_attributes_of_nothing_are_refused(row: int, name: int, message: str) -> None:
    batch = a_record(
        attribute_row=[row], attribute_name=[name], attribute_text=[0], attribute_number=[1.0]
    )

    with pytest.raises(InvalidBatch, match=message):
        decode_batch(batch.SerializeToString())


def test_an_unknown_field_is_passed_over() -> None:
    later = encode_batch([a_visit()]) + b"\xf2\x3f\x03abc"  # field 1022, three bytes

    assert len(decode_batch(later)) == 1


def test_a_tick_is_a_batch_that_nobody_refuses() -> None:
    columns = decode_batch(encode_tick(str(UUID(int=1)), NOW_MS))

    assert columns.kind.tolist() == [Kind.TICK]
    assert columns.event_time_ms.tolist() == [NOW_MS]
    assert refuse(columns, append_time_ms=NOW_MS, limits=LIMITS) == []


def test_an_item_keeps_its_fields() -> None:
    update = ItemUpdate(
        item_id="i",
        category="drama",
        title="T",
        description="D",
        tags=("a", "b"),
        withdrawn=True,
        updated_ms=5,
        attributes={"year": 1995.0},
    )

    item = pb.Item.FromString(encode_item(update))

    assert (item.item_id, item.category, item.title, item.withdrawn) == ("i", "drama", "T", True)
    assert (item.updated_ms, dict(item.attributes)) == (5, {"year": 1995.0})
    assert (item.description, list(item.tags)) == ("D", ["a", "b"])


def test_columns_are_views_of_the_types_that_the_stream_folds() -> None:
    columns = decode_batch(encode_batch([a_visit()]))
    arrays = {f.name: getattr(columns, f.name) for f in fields(columns)}

    dtypes = {name: a.dtype for name, a in arrays.items() if isinstance(a, np.ndarray)}

    assert dtypes["kind"] == np.uint8
    assert dtypes["event_time_ms"] == np.int64
    assert dtypes["value"] == np.float64
    assert {dtypes[name] for name in ("user_id", "item_id", "request_id")} == {np.dtype("<u4")}
