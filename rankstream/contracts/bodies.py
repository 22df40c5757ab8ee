"""The events of a JSON body, told apart without being read: one bad event spoils no other."""

from __future__ import annotations

import json

from rankstream.contracts.batches import EVENTS_PER_BATCH_MAX
from rankstream.errors import InvalidRequest, MalformedEvent, TooLarge

# Numbers become floats, whatever their length: the contract parses them again, and refuses.
_SCANNER = json.JSONDecoder(strict=False, parse_int=float)
_BLANK = " \t\n\r"


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
