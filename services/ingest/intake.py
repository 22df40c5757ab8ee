"""From the parts of a body to events: keep what fits the contract, name what does not.

Pure: bytes and a clock reading in, verdicts out. One bad event never rejects the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rankstream import topics
from rankstream.contracts.codec import decode_message
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.dead_letters import JSON_TYPE, kept_bytes
from rankstream.contracts.events import ItemUpdate, Message
from rankstream.contracts.ids import new_id
from rankstream.errors import (
    EventTimeOutOfRange,
    InvalidInput,
    TooLarge,
)
from rankstream.pb import events_pb2 as pb

EVENT_BYTES_MAX = 65_536
EVENT_ID_CHARACTERS_MAX = 256


@dataclass(frozen=True, slots=True)
class Accepted:
    """Event `index` of its request fits the contract; `size` is its JSON in bytes."""

    index: int
    message: Message
    size: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """Event `index` of its request breaks a rule; `event_id` is "" if it had none."""

    index: int
    event_id: str
    error: InvalidInput
    original: bytes


def classify(
    parts: Sequence[bytes], *, clock_ms: int, limits: TimeLimits, first_index: int = 0
) -> tuple[list[Accepted], list[Rejected]]:
    """What the contract says of each event.

    Args:
        parts: the bytes of each event.
        clock_ms: when they arrived: the wall clock at the edge, the broker's for a record.
        limits: how far event time may be from `clock_ms`.
        first_index: the index of parts[0] in its request.
    """
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for index, part in enumerate(parts, first_index):
        try:
            message = _decode(part)
            _check_time(message, clock_ms, limits)
        except InvalidInput as error:
            rejected.append(Rejected(index, _event_id(part), error, part))
        else:
            accepted.append(Accepted(index, message, len(part)))
    return accepted, rejected


def _decode(part: bytes) -> Message:
    if len(part) > EVENT_BYTES_MAX:
        raise TooLarge(
            f"too_large: an event of {len(part)} bytes (limit {EVENT_BYTES_MAX})."
            " Not accepted. Shorten its texts."
        )
    return decode_message(part)


def _check_time(message: Message, clock_ms: int, limits: TimeLimits) -> None:
    is_item = isinstance(message, ItemUpdate)
    name = "updated_ms" if is_item else "event_time_ms"
    time_ms: int = getattr(message, name)
    ahead_ms = time_ms - clock_ms
    if ahead_ms > limits.ahead_ms_max:
        raise EventTimeOutOfRange(
            f"event_time_out_of_range: {message.kind} has {name}={time_ms}, {ahead_ms} ms ahead of"
            f" the clock (limit {limits.ahead_ms_max} ms). Not accepted. Fix the client's clock or"
            " raise INGEST_CLOCK_SKEW_MS_MAX."
        )
    # An item that nobody changed for years is still what it is.
    if -ahead_ms > limits.behind_ms_max and not is_item:
        raise EventTimeOutOfRange(
            f"event_time_out_of_range: {message.kind} has {name}={time_ms}, {-ahead_ms} ms behind"
            f" the clock (limit {limits.behind_ms_max} ms). Not accepted. Check the unit (ms since"
            " the epoch) or raise INGEST_EVENT_AGE_MS_MAX."
        )


def _event_id(part: bytes) -> str:
    """The event_id that a refused event claims, if it can be read at all."""
    try:
        found = json.loads(part)
    except (ValueError, RecursionError):
        return ""
    claimed = found.get("event_id") if isinstance(found, dict) else None
    return claimed[:EVENT_ID_CHARACTERS_MAX] if isinstance(claimed, str) else ""


def dead_letter(rejected: Rejected, *, clock_ms: int) -> pb.DeadLetter:
    """The dead letter of an event that was refused at the edge: it never was in a partition."""
    kept, cut = kept_bytes(rejected.original)
    return pb.DeadLetter(
        dead_letter_id=new_id(),
        code=rejected.error.code,
        reason=str(rejected.error) + cut,
        original=kept,
        source="ingest",
        topic=topics.EVENTS.name,
        partition=-1,
        offset=-1,
        refused_ms=clock_ms,
        content_type=JSON_TYPE,
        events=1,
    )
