"""Event ids seen lately, so that an event sent twice counts once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

# About 200 bytes each. Past this the oldest are forgotten early, which `evicted` counts; an
# event behind the watermark is refused as late anyway, so it still cannot count twice.
IDS_MAX: Final = 2_000_000
_ID_BYTES: Final = 16


class _Record(NamedTuple):
    newest_ms: int  # event time, after the record
    ids_before: int  # of all records before it
    ids: list[bytes]


class SeenIds:
    """Ids of folded events, each held until the newest event time has moved on by some span.

    Whether an id is held depends on the records before the one at hand, and not on when `forget`
    was called last.
    """

    def __init__(self, span_ms: int) -> None:
        self.evicted = 0
        self._span_ms = span_ms
        self.ids: dict[bytes, int] = {}  # number of the record that brought it; see `holds`
        self._records: deque[_Record] = deque()
        self._first = 0  # number of _records[0]
        self._count = 0  # ids of all records so far

    def __len__(self) -> int:
        return len(self.ids)

    def holds(self, event_id: bytes, newest_ms: int) -> bool:
        """Whether one of `ids` is not too old; `newest_ms` as it was before the record at hand."""
        record = self._records[self.ids[event_id] - self._first]
        return (
            record.newest_ms >= newest_ms - self._span_ms
            and self._count - record.ids_before <= IDS_MAX
        )

    def remember(self, ids: list[bytes], newest_ms: int) -> None:
        """Note the ids that a record brought; `newest_ms`, after it, never falls."""
        self.ids.update(dict.fromkeys(ids, self._first + len(self._records)))
        self._records.append(_Record(newest_ms, self._count, ids))
        self._count += len(ids)

    def forget(self, newest_ms: int) -> None:
        """Drop what is held no longer; `newest_ms` as it is now."""
        oldest_ms = newest_ms - self._span_ms
        while self._records:
            record = self._records[0]
            if record.newest_ms >= oldest_ms:
                if self._count - record.ids_before <= IDS_MAX:
                    break
                self.evicted += len(record.ids)
            for event_id in record.ids:
                if self.ids[event_id] == self._first:
                    del self.ids[event_id]
            self._records.popleft()
            self._first += 1

    def dump(self) -> dict[str, bytes]:
        """The ids, to go on from with `load`."""
        index = [self.evicted, [[r.newest_ms, len(r.ids)] for r in self._records]]
        return {
            "index": json.dumps(index).encode(),
            "ids": b"".join(b"".join(record.ids) for record in self._records),
        }

    def load(self, parts: Mapping[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        self.evicted, index = json.loads(parts["index"])
        self.ids, self._first, self._count = {}, 0, 0
        self._records.clear()
        joined = parts["ids"]
        for newest_ms, n in index:
            start = _ID_BYTES * self._count
            end = start + _ID_BYTES * n
            ids = [joined[i : i + _ID_BYTES] for i in range(start, end, _ID_BYTES)]
            self.remember(ids, newest_ms)
