"""Which records of a source were folded already: the dedupe of every delta topic.

`labels` and `feature-updates` carry exactly one record per source record and target partition, in
source order. A producer that restarts may emit some of them again, so whoever adds deltas up skips
every record at or below the highest source offset that it has folded.
"""

from __future__ import annotations

from collections.abc import Mapping


class HighWater:
    """Highest folded source offset of each source partition.

    Holds one integer per partition, so it can be stored beside the state that it guards.
    """

    def __init__(self, offsets: Mapping[int, int] | None = None) -> None:
        self._offsets = dict(offsets or {})

    def advance(self, source_partition: int, source_offset: int) -> bool:
        """Return True if the record is new, and remember it; False if it was folded before.

        >>> mark = HighWater()
        >>> mark.advance(0, 7), mark.advance(0, 7), mark.advance(1, 7)
        (True, False, True)
        """
        if source_offset <= self._offsets.get(source_partition, -1):
            return False
        self._offsets[source_partition] = source_offset
        return True

    def offsets(self) -> dict[int, int]:
        """Highest folded offset by source partition: what to store and to start again from."""
        return dict(self._offsets)
