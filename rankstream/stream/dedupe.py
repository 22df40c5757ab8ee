"""Event ids seen lately, so that an event sent twice counts once."""

from __future__ import annotations

import json
from collections import deque
from typing import Final

# About 130 bytes each. Past this the oldest are forgotten early, which `evicted` counts; an
# event behind the watermark is refused as late anyway, so it still cannot count twice.
IDS_MAX: Final = 2_000_000
_ID_BYTES: Final = 16


class SeenIds:
    """Ids of folded events, each kept until the newest event time has moved on by some span."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.evicted = 0
        self._by_record: deque[tuple[int, list[bytes]]] = deque()  # newest time then, ids

    def __len__(self) -> int:
        return len(self.ids)

    def remember(self, added: list[bytes], newest_ms: int) -> None:
        """Keep ids that were just put into `ids`; `newest_ms` never falls from call to call."""
        self._by_record.append((newest_ms, added))
        while len(self.ids) > IDS_MAX:
            _, oldest = self._by_record.popleft()
            self.ids.difference_update(oldest)
            self.evicted += len(oldest)

    def forget_before(self, time_ms: int) -> None:
        """Forget ids remembered when the newest event time was earlier than this."""
        while self._by_record and self._by_record[0][0] < time_ms:
            self.ids.difference_update(self._by_record.popleft()[1])

    def dump(self) -> dict[str, bytes]:
        """The ids, to go on from with `load`."""
        index = [self.evicted, [[newest, len(ids)] for newest, ids in self._by_record]]
        return {
            "index": json.dumps(index).encode(),
            "ids": b"".join(b"".join(ids) for _, ids in self._by_record),
        }

    def load(self, parts: dict[str, bytes]) -> None:
        """Replace the state by a dumped one."""
        self.evicted, index = json.loads(parts["index"])
        joined, start = parts["ids"], 0
        self._by_record.clear()
        for newest_ms, n in index:
            end = start + _ID_BYTES * n
            ids = [joined[i : i + _ID_BYTES] for i in range(start, end, _ID_BYTES)]
            self._by_record.append((newest_ms, ids))
            start = end
        self.ids = {event_id for _, ids in self._by_record for event_id in ids}
