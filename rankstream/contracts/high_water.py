"""Which records of a source were folded already: the dedupe of every delta topic.

The features service folds the records of a partition of `events` in runs, and sends one record for
each run and target partition, with the offset of the run's last source record. After a crash some
are sent again, so whoever adds deltas up skips those at or below the offset folded last.

`labels` also says where a run begins. The first run to be in its log after another is the one that
counts; a run that does not begin where the last one has ended was cut by a worker that had lost
the partition, and is skipped.
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

    def follow(self, source_partition: int, first_offset: int, source_offset: int) -> bool:
        """As `advance`, for a run that must begin right behind the one before; any may be first.

        >>> mark = HighWater()
        >>> mark.follow(0, 0, 7), mark.follow(0, 5, 9), mark.follow(0, 8, 9)
        (True, False, True)
        """
        folded = self._offsets.get(source_partition)
        if folded is not None and first_offset != folded + 1:
            return False
        return self.advance(source_partition, source_offset)

    def offsets(self) -> dict[int, int]:
        """Highest folded offset by source partition: what to store and to start again from."""
        return dict(self._offsets)
