"""Events by the partition of their user: split a record, and find who is in the wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rankstream.contracts.batches import encode_rows
from rankstream.contracts.columns import EventColumns, Kind, Refusal
from rankstream.contracts.ids import partition_of
from rankstream.errors import WrongPartition

Rows = npt.NDArray[np.intp]

_partition_of = lru_cache(maxsize=1 << 17)(partition_of)


def misplaced(
    columns: EventColumns, refusals: Sequence[Refusal], *, partition: int, partitions: int
) -> list[Refusal]:
    """Refusals with those of rows whose user belongs to another partition; one for each row.

    Ticks belong to whichever partition they are in.

    Args:
        refusals: of these columns, in order of their rows, for other reasons.
        partition: where the records were.
        partitions: of the topic.
    """
    own = _own_partition(columns, partitions)
    wrong = np.flatnonzero((own != partition) & (columns.kind != Kind.TICK)).tolist()
    if not wrong:
        return list(refusals)
    refused = {row: _misplaced(columns, row, int(own[row]), partition, partitions) for row in wrong}
    refused |= {refusal.row: refusal for refusal in refusals}
    return [refused[row] for row in sorted(refused)]


def _misplaced(
    columns: EventColumns, row: int, own: int, partition: int, partitions: int
) -> Refusal:
    user = columns.strings[int(columns.user_id[row])][:80]
    return Refusal(
        row,
        WrongPartition.code,
        f"user {user!r} belongs to partition {own} of {partitions}, the event was in {partition}:"
        " partition by murmur2 of the user id (docs/producing.md)",
    )


def split_batch(columns: EventColumns, partitions: int) -> dict[int, bytes]:
    """EventBatch records of the events by partition of their user, each in order.

    Ticks are left out: they say something of the partition that they were in, and of no other.
    """
    own = _own_partition(columns, partitions)
    is_event = columns.kind != Kind.TICK
    return {
        int(partition): encode_rows(columns, np.flatnonzero(is_event & (own == partition)))
        for partition in np.unique(own[is_event])
    }


def _own_partition(columns: EventColumns, partitions: int) -> npt.NDArray[np.int64]:
    """Partition of each row's user, shape (n,)."""
    users, at = np.unique(columns.user_id, return_inverse=True)
    strings = columns.strings
    found = [_partition_of(strings[user], partitions) for user in users.tolist()]
    own: npt.NDArray[np.int64] = np.array(found, np.int64)[at]
    return own
