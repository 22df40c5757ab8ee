"""Feature rows in Redis, in Feast's own layout: keys, a fixed-layout writer, a batch decoder.

One hash per entity. Its key is Feast's entity key, version 3, followed by the project's name; its
field is the murmur3 of "view:feature"; its value a `feast.types.Value` protobuf. Each view has one
Bytes feature, `state`, which is a packed row (see `features.rows`), so that every value of a view
has the same length and 500 of them are one array. tests/parity/test_feast.py holds both ways
against Feast itself.

Source: feast 0.67, infra/key_encoding_utils.py and infra/online_stores/{helpers,redis}.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import mmh3
import numpy as np

from rankstream.errors import SpecMismatch
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ROW,
    ITEM_ROW,
    USER_ROW,
    Rows,
    empty_rows,
)

PROJECT: Final = "rankstream"
FEATURE: Final = "state"
# Commands that a reader keeps, some 80 bytes each.
COMMANDS_MAX: Final = 1 << 17

_STRING_TYPE: Final = 2  # feast.types.ValueType.STRING
_BYTES_TAG: Final = b"\x0a"  # feast.types.Value.bytes_val: field 1, length-delimited
_SECONDS_TAG: Final = 0x08  # google.protobuf.Timestamp.seconds: field 1, varint


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bulk(argument: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def command(*arguments: bytes) -> bytes:
    """One Redis command on the wire (RESP 2)."""
    return b"*%d\r\n%b" % (len(arguments), b"".join(map(_bulk, arguments)))


@dataclass(frozen=True)
class View:
    """One feature view: entity rows of one dtype, under the entity's text id."""

    name: str
    join_key: str
    dtype: np.dtype[np.void]

    @property
    def row_bytes(self) -> int:
        """Length of a packed row."""
        return self.dtype.itemsize

    @property
    def value_head(self) -> bytes:
        """What precedes the row in a stored value."""
        return _BYTES_TAG + _varint(self.row_bytes)

    @property
    def key_prefix(self) -> bytes:
        """What every key of the view, and no other, begins with; the id's length follows."""
        return entity_key(self, "")[: -len(PROJECT) - 4]

    @property
    def field(self) -> bytes:
        """Hash field of the view's one feature."""
        return struct.pack("<I", mmh3.hash(f"{self.name}:{FEATURE}", signed=False))


USER_STATE: Final = View("user_state", "user_id", USER_ROW)
ITEM_STATE: Final = View("item_state", "item_id", ITEM_ROW)
CATEGORY_STATE: Final = View("category_state", "category", CATEGORY_ROW)
QUERY_STATE: Final = View("query_state", "query", CONTEXT_ROW)
LOCATION_STATE: Final = View("location_state", "location", CONTEXT_ROW)
VIEWS: Final = (USER_STATE, ITEM_STATE, CATEGORY_STATE, QUERY_STATE, LOCATION_STATE)


def entity_key(view: View, entity_id: str) -> bytes:
    """The key of an entity's hash."""
    key, value = view.join_key.encode(), entity_id.encode()
    return b"".join(
        (
            struct.pack("<III", 1, _STRING_TYPE, len(key)),
            key,
            struct.pack("<II", _STRING_TYPE, len(value)),
            value,
            PROJECT.encode(),
        )
    )


def offset_key(stage: str, partition: int) -> bytes:
    """The key that fences a partition of a stage and holds the offset to go on from."""
    return f"{PROJECT}:offset:{stage}:{partition}".encode()


class RowEncoder:
    """Packs HSET commands of one view.

    `_ts` of a row is the event time of its newest event, in whole seconds, as five-byte varint
    (protobuf readers accept the padding), so that only key and row differ between commands.
    """

    def __init__(self, view: View) -> None:
        self._prefix = view.key_prefix
        self._row_bytes = view.row_bytes
        fields = view.dtype.fields
        assert fields is not None
        self._last_ms_at = fields["last_ms"][1]
        self._before_row = b"\r\n%b$%d\r\n%b" % (
            _bulk(view.field),
            len(view.value_head) + view.row_bytes,
            view.value_head,
        )
        self._fields = (view.field, f"_ts:{view.name}".encode())
        self._before_time = b"\r\n%b$6\r\n" % _bulk(self._fields[1])

    def hset(self, entity_id: str, row: bytes) -> bytes:
        """The command that stores a packed row, exactly `row_bytes` long."""
        assert len(row) == self._row_bytes, (len(row), self._row_bytes)
        key = self._key(entity_id)
        seconds = struct.unpack_from("<q", row, self._last_ms_at)[0] // 1000
        return b"*6\r\n$4\r\nHSET\r\n$%d\r\n%b%b%b%b%b\r\n" % (
            len(key),
            key,
            self._before_row,
            row,
            self._before_time,
            bytes(
                (
                    _SECONDS_TAG,
                    seconds & 0x7F | 0x80,
                    seconds >> 7 & 0x7F | 0x80,
                    seconds >> 14 & 0x7F | 0x80,
                    seconds >> 21 & 0x7F | 0x80,
                    seconds >> 28 & 0x7F,
                )
            ),
        )

    def hdel(self, entity_id: str) -> bytes:
        """The command that removes a row, and nothing else that the entity may have."""
        return command(b"HDEL", self._key(entity_id), *self._fields)

    def _key(self, entity_id: str) -> bytes:
        value = entity_id.encode()
        return b"%b%b%b%b" % (
            self._prefix,
            struct.pack("<I", len(value)),
            value,
            PROJECT.encode(),
        )


class KeyReader:
    """Finds the entities of a view among keys."""

    def __init__(self, view: View) -> None:
        self.prefix = view.key_prefix
        self._from, self._until = len(self.prefix) + 4, -len(PROJECT)

    def entity_ids(self, keys: Iterable[bytes]) -> list[str]:
        """The ids of the entities of this view, in order."""
        prefix, start, end = self.prefix, self._from, self._until
        return [key[start:end].decode() for key in keys if key.startswith(prefix)]


class RowReader:
    """Packs HGET commands of one view and turns the replies into an array."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._prefix = view.key_prefix
        # Length of the key and all that stands before the id.
        self._fixed = len(self._prefix) + 4 + len(PROJECT)
        self._tail = PROJECT.encode() + b"\r\n" + _bulk(view.field)
        self._hget = lru_cache(COMMANDS_MAX)(self._packed)
        self._absent = view.value_head + empty_rows(1, view.dtype).tobytes()
        self._stored = np.dtype([("head", f"V{len(view.value_head)}"), ("row", view.dtype)])

    def hgets(self, entity_ids: Iterable[str]) -> bytes:
        """One HGET per id, packed for one write."""
        return b"".join(map(self._hget, entity_ids))

    def _packed(self, entity_id: str) -> bytes:
        value = entity_id.encode()
        return b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b%b%b%b" % (
            self._fixed + len(value),
            self._prefix,
            struct.pack("<I", len(value)),
            value,
            self._tail,
        )

    def rows(self, replies: Sequence[bytes | None]) -> Rows:
        """The rows, shape (n,), read-only; an unknown entity has the empty row.

        Raises: SpecMismatch if a stored row has another length than this version's.
        """
        absent = self._absent
        stored = [absent if reply is None else reply for reply in replies]
        joined = b"".join(stored)
        if len(joined) != len(stored) * len(absent):
            lengths = sorted({len(value) for value in stored} - {len(absent)})
            raise SpecMismatch(
                f"spec_mismatch: {self._view.name} in Redis has values of {lengths} bytes,"
                f" this version's have {len(absent)}. Not read."
                " Run the features service of the same version, or empty this Redis."
            )
        rows: Rows = np.frombuffer(joined, self._stored)["row"]
        return rows
