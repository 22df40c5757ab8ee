"""From a body to events: split it, keep what fits the contract, name what does not.

Pure: bytes and a clock reading in, verdicts out. One bad event never rejects the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rankstream import topics
from rankstream.contracts.codec import EVENTS_PER_BATCH_MAX, decode_message
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import ItemUpdate, Message
from rankstream.contracts.ids import new_id
from rankstream.errors import (
    EventTimeOutOfRange,
    InvalidInput,
    InvalidRequest,
    MalformedEvent,
    TooLarge,
)
from rankstream.pb import events_pb2 as pb

EVENT_BYTES_MAX = 65_536
DEAD_LETTER_BYTES_MAX = topics.MAX_RECORD_BYTES - 65_536
EVENT_ID_CHARACTERS_MAX = 256
JSON_TYPE = "application/json"

# Numbers become floats, whatever their length: the contract parses them again, and refuses.
_SCANNER = json.JSONDecoder(strict=False, parse_int=float)
_BLANK = " \t\n\r"


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


def split_array(body: bytes) -> list[bytes]:
    """The bytes of each element of a JSON array.

    Raises:
        MalformedEvent: not an array, or one whose elements cannot be told apart.
        InvalidRequest: it is empty.
        TooLarge: more elements than one request may hold.
    """
    # One character per byte: slices are the original bytes, and wrong UTF-8 spoils one event.
    text = body.decode("latin-1")
    at = _skip_blank(text, 0)
    if text[at : at + 1] != "[":
        raise _malformed("not a JSON array", body)
    at = _skip_blank(text, at + 1)
    parts: list[bytes] = []
    while text[at : at + 1] != "]":
        if parts:
            if text[at : at + 1] != ",":
                raise _malformed(f"no comma at byte {at}", body)
            at = _skip_blank(text, at + 1)
        try:
            _, end = _SCANNER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            what = getattr(error, "msg", "nested too deep")
            raise _malformed(f"{what} at byte {at}", body) from None
        parts.append(text[at:end].encode("latin-1"))
        at = _skip_blank(text, end)
    if text[at + 1 :].strip(_BLANK):
        raise _malformed(f"more after the array's end at byte {at}", body)
    return _within_limits(parts)


def split_lines(body: bytes) -> list[bytes]:
    """The lines of an NDJSON body, blank ones left out.

    Raises: InvalidRequest if there is none, TooLarge if there are too many.
    """
    return _within_limits([line for line in body.split(b"\n") if line.strip()])


def split_any(body: bytes) -> list[bytes]:
    """The events of a body that is one event or an array of them. Raises: as split_array."""
    return split_array(body) if body.lstrip()[:1] == b"[" else [body]


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _within_limits(parts: list[bytes]) -> list[bytes]:
    if not parts:
        raise InvalidRequest("invalid_request: no event in the body. Nothing to do. Send some.")
    if len(parts) > EVENTS_PER_BATCH_MAX:
        raise TooLarge(
            f"too_large: {len(parts)} events in one request (limit {EVENTS_PER_BATCH_MAX})."
            " None was accepted. Send several requests."
        )
    return parts


def _malformed(what: str, body: bytes) -> MalformedEvent:
    return MalformedEvent(
        f"malformed_event: {what}, in a body of {len(body)} bytes that begins {body[:40]!r}."
        " None was accepted. Send a JSON array of events."
    )


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
    kept = rejected.original[:DEAD_LETTER_BYTES_MAX]
    cut = len(rejected.original) - len(kept)
    return pb.DeadLetter(
        dead_letter_id=new_id(),
        code=rejected.error.code,
        reason=str(rejected.error) + (f" The last {cut} bytes were not kept." if cut else ""),
        original=kept,
        source="ingest",
        topic=topics.EVENTS.name,
        partition=-1,
        offset=-1,
        refused_ms=clock_ms,
        content_type=JSON_TYPE,
        events=1,
    )
