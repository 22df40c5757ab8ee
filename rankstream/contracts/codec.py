"""Bytes to contract and back. The only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from google.protobuf.message import DecodeError
from pydantic import ValidationError

from rankstream.contracts.batches import EVENTS_PER_BATCH_MAX, TEXT_COLUMNS, decode_batches
from rankstream.contracts.columns import EventColumns, Kind
from rankstream.contracts.events import MESSAGE, Event, EventBase, ItemUpdate, Message
from rankstream.contracts.experiment import Experiment, Variant
from rankstream.errors import (
    InvalidEvent,
    InvalidExperiment,
    MalformedEvent,
    UnknownKind,
)
from rankstream.pb import events_pb2 as pb
from rankstream.pb import experiments_pb2

KINDS = ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in Kind)


def decode_message(body: bytes) -> Message:
    """One JSON event or item update.

    Raises:
        MalformedEvent: not JSON, or not an object.
        UnknownKind: `kind` is missing or not one of ours.
        InvalidEvent: a field is missing, unknown, of another type, or out of range.
    """
    try:
        return MESSAGE.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        kind = first["type"]
        where = ".".join(str(part) for part in first["loc"][1:]) or "event"
        if kind in ("json_invalid", "model_attributes_type", "dict_type"):
            raise MalformedEvent(
                f"malformed_event: {first['msg']} in {body[:80]!r}. Not folded. Send a JSON object."
            ) from None
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            raise UnknownKind(
                f"unknown_kind: {first['msg']}. Not folded. Set `kind` to one of the known kinds."
            ) from None
        raise InvalidEvent(
            f"invalid_event: {where}: {first['msg']}, got {str(first['input'])[:80]!r}."
            f" Not folded. Mend the field and send the event again."
        ) from None


class _Dictionary:
    """Text of one batch, each string once; index 0 is the empty string."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {"": 0}

    def __call__(self, text: str) -> int:
        return self.index.setdefault(text, len(self.index))


def encode_batch(events: Sequence[Event]) -> bytes:
    """An EventBatch record of these events, which must all belong to one partition."""
    assert 0 < len(events) <= EVENTS_PER_BATCH_MAX, len(events)
    batch = pb.EventBatch()
    dictionary = _Dictionary()
    batch.event_id = b"".join(UUID(event.event_id).bytes for event in events)
    batch.kind.extend(getattr(pb, f"KIND_{event.kind.upper()}") for event in events)
    batch.event_time_ms.extend(event.event_time_ms for event in events)
    for name in TEXT_COLUMNS:
        column = [dictionary(getattr(event, name, "")) for event in events]
        if any(column):
            getattr(batch, name).extend(column)
    for name in ("position", "value"):
        numbers = [getattr(event, name, 0) for event in events]
        if any(numbers):
            getattr(batch, name).extend(numbers)
    for row, event in enumerate(events):
        for key, entry in _attributes(event).items():
            is_text = isinstance(entry, str)
            batch.attribute_row.append(row)
            batch.attribute_name.append(dictionary(key))
            batch.attribute_text.append(dictionary(str(entry)) if is_text else 0)
            batch.attribute_number.append(0.0 if is_text else float(entry))
    batch.strings.extend(dictionary.index)
    return batch.SerializeToString()


def _attributes(event: EventBase) -> Mapping[str, str | float]:
    return getattr(event, "attributes", {})


def encode_tick(event_id: str, event_time_ms: int) -> bytes:
    """A record that says: nothing happened on this partition until then."""
    batch = pb.EventBatch(strings=[""], event_id=UUID(event_id).bytes)
    batch.kind.append(pb.KIND_TICK)
    batch.event_time_ms.append(event_time_ms)
    batch.user_id.append(0)
    return batch.SerializeToString()


def decode_batch(record: bytes) -> EventColumns:
    """The columns of an EventBatch record.

    Raises:
        InvalidBatch: not an EventBatch, empty, over the limit, or columns of
            different lengths or with an index outside `strings`.
    """
    decoded = decode_batches([record])
    for error in decoded.invalid.values():
        raise error
    return decoded.columns


def event_at(columns: EventColumns, row: int) -> Event:
    """Row `row` as a contract: for inspection and tests, never on the hot path.

    Raises: InvalidEvent if the row breaks the contract.
    """
    number = int(columns.kind[row])
    if number not in set(Kind):
        raise UnknownKind(f"unknown_kind: row {row} has kind {number}. Use one of {KINDS}.")
    kind = Kind(number)
    fields: dict[str, Any] = {
        "kind": kind.name.lower(),
        "event_id": str(UUID(bytes=columns.event_id[16 * row : 16 * row + 16])),
        "event_time_ms": int(columns.event_time_ms[row]),
    }
    for name in TEXT_COLUMNS:
        if text := columns.strings[int(getattr(columns, name)[row])]:
            fields[name] = text
    if kind is Kind.IMPRESSION:
        fields["position"] = int(columns.position[row])
    if kind in (Kind.RATE, Kind.PURCHASE, Kind.VIEW):
        fields["value"] = float(columns.value[row])
    if kind in (Kind.USER_UPDATE, Kind.CONTEXT):
        fields["attributes"] = attributes_at(columns, row)
    try:
        event = MESSAGE.validate_python(fields)
    except ValidationError as error:
        raise InvalidEvent(f"invalid_event: row {row}: {error.errors()[0]['msg']}") from None
    assert not isinstance(event, ItemUpdate)
    return event


def attributes_at(columns: EventColumns, row: int) -> dict[str, str | float]:
    """Attributes of one event; later entries of the same name win."""
    found: dict[str, str | float] = {}
    for j in np.flatnonzero(columns.attribute_row == row).tolist():
        text = int(columns.attribute_text[j])
        found[columns.strings[int(columns.attribute_name[j])]] = (
            columns.strings[text] if text else float(columns.attribute_number[j])
        )
    return found


def encode_item(item: ItemUpdate) -> bytes:
    """An Item record of topic `items`."""
    return pb.Item(
        item_id=item.item_id,
        category=item.category,
        withdrawn=item.withdrawn,
        updated_ms=item.updated_ms,
        attributes=item.attributes,
        title=item.title,
        description=item.description,
        tags=item.tags,
    ).SerializeToString()


def encode_experiment(experiment: Experiment) -> bytes:
    """An ExperimentDefinition record of topic `experiments`."""
    return experiments_pb2.ExperimentDefinition(
        experiment_id=experiment.id,
        version=experiment.version,
        salt=experiment.salt,
        layer=experiment.layer,
        layer_start_bp=experiment.layer_start_bp,
        unit=experiment.unit,
        variants=[experiments_pb2.VariantDefinition(**v.model_dump()) for v in experiment.variants],
        traffic_bp=experiment.traffic_bp,
        overrides=experiment.overrides,
        status=f"EXPERIMENT_{experiment.status.upper()}",
        start_ms=experiment.start_ms or 0,
        stop_ms=experiment.stop_ms or 0,
        control=experiment.control,
        primary_metric=experiment.primary_metric,
        guardrails=experiment.guardrails,
        planned_lift=experiment.planned_lift,
    ).SerializeToString()


def decode_experiment(record: bytes) -> Experiment:
    """The experiment that a record defines.

    Raises: InvalidExperiment if the bytes are not a definition, or one that breaks a rule.
    """
    try:
        found = experiments_pb2.ExperimentDefinition.FromString(record)
        status = experiments_pb2.ExperimentStatus.Name(found.status)
        return Experiment.model_validate(
            {
                "id": found.experiment_id,
                "version": found.version,
                "salt": found.salt,
                "layer": found.layer,
                "layer_start_bp": found.layer_start_bp,
                "unit": found.unit,
                "variants": tuple(
                    Variant(
                        name=v.name,
                        weight_bp=v.weight_bp,
                        model=v.model,
                        policy=v.policy,
                        interleave_with=v.interleave_with,
                    )
                    for v in found.variants
                ),
                "traffic_bp": found.traffic_bp,
                "overrides": dict(found.overrides),
                "status": status.removeprefix("EXPERIMENT_").lower(),
                "start_ms": found.start_ms or None,
                "stop_ms": found.stop_ms or None,
                "control": found.control,
                "primary_metric": found.primary_metric,
                "guardrails": tuple(found.guardrails),
                "planned_lift": found.planned_lift,
            }
        )
    except DecodeError as error:
        raise InvalidExperiment(
            f"invalid_experiment: record of {len(record)} bytes is not a definition: {error}."
            " Skipped. Define the experiment again."
        ) from None
    except (ValidationError, ValueError) as error:
        raise InvalidExperiment(
            f"invalid_experiment: {error}. Skipped. Define the experiment again."
        ) from None
