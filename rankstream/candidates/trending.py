"""Items clicked most lately: clicks by item over a window of event time, from topic `labels`.

A click is counted at the time of its impression, so what takes it back takes it back where it was
counted. Counts are whole numbers: whatever order partitions are read in, they are the same.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from rankstream.contracts.high_water import HighWater
from rankstream.contracts.ids import id64
from rankstream.contracts.record import Record
from rankstream.contracts.shard import WHOLE, Shard
from rankstream.errors import InvalidBatch
from rankstream.pb.events_pb2 import LabelBatchView

BUCKETS: Final = 24  # of a window: it moves by so much of itself
ITEMS_MAX: Final = 20_000
_COLUMNS: Final = {
    "item_id": "<u4",
    "impression_time_ms": "<i8",
    "old_clicked": "<u4",
    "new_clicked": "<u4",
}


class Trending:
    """Clicks of the last `window_ms` up to the newest impression or watermark, on a shard's items.

    At most `items_max` items are kept. Once there are more, the half with the fewest clicks is
    forgotten: the others' counts stay exact, and one that comes back begins at 0.
    """

    def __init__(self, *, window_ms: int, items_max: int = ITEMS_MAX, shard: Shard = WHOLE) -> None:
        self.window_ms = window_ms
        self._shard = shard
        self._bucket_ms = max(1, window_ms // BUCKETS)
        self._items_max = items_max
        self._folded = HighWater()
        self._buckets: dict[int, dict[int, int]] = {}  # number of bucket -> id64 -> clicks
        self._clicks: dict[int, int] = {}  # the sum of the buckets
        self._newest = -1
        self.changed = False  # since `clicked` was asked for

    def fold(self, record: Record) -> None:
        """Add a record of `labels`; one that was folded, or follows on none that was, adds nothing.

        Raises: InvalidBatch: not a LabelBatch, or its columns contradict each other.
        """
        batch, columns = _decoded(record)
        if not self._folded.follow(batch.source_partition, batch.first_offset, batch.source_offset):
            return
        # The log's clock bounds the producers': a wrong one must not empty the window.
        times = np.minimum(columns["impression_time_ms"], record.timestamp_ms)
        newest_ms = max(min(batch.watermark_ms, record.timestamp_ms), int(times.max(initial=-1)))
        self._move(newest_ms // self._bucket_ms)
        clicks = columns["new_clicked"].astype(np.int64) - columns["old_clicked"]
        (rows,) = np.nonzero(clicks)
        for number, item, more in zip(
            (times[rows] // self._bucket_ms).tolist(),
            columns["item_id"][rows].tolist(),
            clicks[rows].tolist(),
            strict=True,
        ):
            if number > self._newest - BUCKETS:
                key = id64(batch.strings[item])
                if self._shard.holds(key):
                    bucket = self._buckets.setdefault(number, {})
                    bucket[key] = bucket.get(key, 0) + more
                    self._add(key, more)
        if len(self._clicks) > self._items_max:
            self._forget()

    def clicked(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
        """Items with clicks, in any order: id64 and clicks, shape (n,)."""
        self.changed = False
        n = len(self._clicks)
        items = np.fromiter(self._clicks.keys(), np.uint64, n)
        clicks = np.fromiter(self._clicks.values(), np.int64, n)
        (clicked,) = np.nonzero(clicks > 0)
        return items[clicked], clicks[clicked].astype(np.float32)

    def _move(self, newest: int) -> None:
        if newest <= self._newest:
            return
        self._newest = newest
        for number in [n for n in self._buckets if n <= newest - BUCKETS]:
            for key, clicks in self._buckets.pop(number).items():
                self._add(key, -clicks)

    def _add(self, key: int, more: int) -> None:
        left = self._clicks.get(key, 0) + more
        self.changed = True
        if left:
            self._clicks[key] = left
        else:
            self._clicks.pop(key, None)

    def _forget(self) -> None:
        by_clicks = sorted(self._clicks, key=lambda key: (-self._clicks[key], key))
        for key in by_clicks[self._items_max // 2 :]:
            del self._clicks[key]
        for number, bucket in self._buckets.items():
            self._buckets[number] = {k: n for k, n in bucket.items() if k in self._clicks}


def _decoded(record: Record) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
    """The batch, and those of its columns that are of use here."""
    try:
        batch = LabelBatchView.FromString(record.value or b"")
        columns = {
            name: np.frombuffer(getattr(batch, name), dtype) for name, dtype in _COLUMNS.items()
        }
    except (DecodeError, ValueError):
        raise _invalid(record, "is not a LabelBatch") from None
    if len({len(column) for column in columns.values()}) > 1:
        raise _invalid(record, "has columns of different lengths")
    if columns["item_id"].max(initial=0) >= max(1, len(batch.strings)):
        raise _invalid(record, f"points past its {len(batch.strings)} strings")
    return batch, columns


def _invalid(record: Record, problem: str) -> InvalidBatch:
    return InvalidBatch(
        f"invalid_batch: {record.topic}[{record.partition}]@{record.offset} {problem}."
        " Its clicks are not counted. Its writer has a bug."
    )
