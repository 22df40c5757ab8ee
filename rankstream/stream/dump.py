"""Named byte parts in one checked file: what a snapshot of a partition's state is made of.

Layout: magic, SHA-256 of the rest, length of the header (u32, little-endian),
header (JSON: version, meta, names and lengths), parts.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import TypeAlias

from rankstream.errors import InvalidArtifact

Piece: TypeAlias = bytes | memoryview

_MAGIC = b"rsdump01"
_LENGTH = struct.Struct("<I")
_HEAD = len(_MAGIC) + 32


def pack(meta: Mapping[str, int | str], parts: Mapping[str, Piece]) -> list[Piece]:
    """One dump of parts, to be written piece by piece; `meta` says what they belong to."""
    header = json.dumps(
        {"meta": dict(meta), "parts": [[name, len(part)] for name, part in parts.items()]},
        sort_keys=True,
    ).encode()
    body = [_LENGTH.pack(len(header)), header, *parts.values()]
    checksum = hashlib.sha256()
    for part in body:
        checksum.update(part)
    return [_MAGIC, checksum.digest(), *body]


def unpack(dump: bytes, meta: Mapping[str, int | str]) -> dict[str, bytes]:
    """The parts of a dump.

    Raises: InvalidArtifact if it is cut, altered, of another version, or was
        made with another `meta`: the caller must rebuild from the log.
    """
    body = memoryview(dump)[_HEAD:]
    if dump[: len(_MAGIC)] != _MAGIC:
        raise InvalidArtifact(
            f"invalid_artifact: a dump begins with {_MAGIC!r}, this with {dump[:8]!r}."
            " Not loaded. Rebuild the state from the log."
        )
    if hashlib.sha256(body).digest() != dump[len(_MAGIC) : _HEAD]:
        raise InvalidArtifact(
            f"invalid_artifact: dump of {len(dump)} bytes fails its checksum."
            " Not loaded. Rebuild the state from the log."
        )
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    header = json.loads(bytes(body[_LENGTH.size : start]))
    if header["meta"] != dict(meta):
        raise InvalidArtifact(
            f"invalid_artifact: dump made with {header['meta']}, this worker runs {dict(meta)}."
            " Not loaded. Rebuild the state from the log."
        )
    parts = {}
    for name, length in header["parts"]:
        parts[name] = bytes(body[start : start + length])
        start += length
    return parts
