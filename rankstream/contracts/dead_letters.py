"""What a dead letter keeps of a record: its bytes and headers, as far as they fit into another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rankstream.pb import events_pb2 as pb

JSON_TYPE: Final = "application/json"
PROTOBUF_TYPE: Final = "application/x-protobuf"
# A letter must fit into a record of its own (topics.MAX_RECORD_BYTES), reason and all.
ORIGINAL_BYTES_MAX: Final = 4 * 1024 * 1024 - 65_536
HEADERS_BYTES_MAX: Final = 16_384
REASON_CHARACTERS_MAX: Final = 4_096

Header = tuple[str, bytes]


def kept_bytes(original: bytes) -> tuple[bytes, str]:
    """The bytes that a letter keeps, and what its reason adds where some had to go."""
    cut = len(original) - ORIGINAL_BYTES_MAX
    if cut <= 0:
        return original, ""
    return original[:ORIGINAL_BYTES_MAX], f" The last {cut} bytes were not kept."


def kept_headers(headers: Iterable[Header]) -> list[pb.DeadLetter.Header]:
    """The first headers that fit HEADERS_BYTES_MAX together, in their order."""
    kept: list[pb.DeadLetter.Header] = []
    size = 0
    for name, value in headers:
        size += len(name.encode()) + len(value)
        if size > HEADERS_BYTES_MAX:
            break
        kept.append(pb.DeadLetter.Header(name=name, value=value))
    return kept


def headers_of(letter: pb.DeadLetter) -> Sequence[Header]:
    """The original record's headers, to send it again with."""
    return [(header.name, header.value) for header in letter.headers]
