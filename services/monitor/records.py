"""Bytes of `served` and `labels` to what the checks work on.

In:  records of the two topics.      Out: slates and label changes.
A record that contradicts itself raises InvalidBatch: its topic has one writer, so that is a bug to
be counted and seen, not a reason to stop watching.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from rankstream.adapters.kafka import Record
from rankstream.contracts.ids import id64
from rankstream.errors import InvalidBatch
from rankstream.monitoring.join import Group, LabelChange
from rankstream.pb import events_pb2 as pb


@dataclass(frozen=True)
class Slate:
    """One answer. `features` float32, shape (n, d); `item_ids` and `pctr` have n entries.

    An answer without scores (popular items) has d = 0 and an empty `pctr`.
    """

    request_id: str
    served_time_ms: int
    seen_ms: int
    group: Group
    spec_id: str
    item_ids: tuple[str, ...]
    pctr: tuple[float, ...]
    features: npt.NDArray[np.float32]
    degraded: tuple[str, ...]

    def sample(self) -> npt.NDArray[np.float32] | None:
        """Features and pctr of one slot, shape (d + 1,); None without scores.

        Slots of a slate share their user, so that all of them would count one draw n times and
        make every test too sure. The slot goes by a hash of the request: a replay takes the same.
        """
        if not self.pctr or not self.features.shape[1]:
            return None
        slot = id64(self.request_id) % len(self.pctr)
        return np.append(self.features[slot], np.float32(self.pctr[slot]))


@dataclass(frozen=True)
class Labels:
    """One record of `labels`: where it came from and what it changes."""

    source_partition: int
    first_offset: int
    source_offset: int
    seen_ms: int
    changes: tuple[LabelChange, ...]


def decode_slate(record: Record) -> Slate:
    """The slate in a record of `served`.

    Raises: InvalidBatch if it is not one, or its columns have different lengths.
    """
    try:
        slate = pb.ServedSlate.FromString(record.value or b"")
    except DecodeError:
        raise _invalid(record, "is not a ServedSlate") from None
    n = len(slate.item_id)
    if n == 0 or len(slate.pctr) not in (0, n) or len(slate.features) % (4 * n):
        raise _invalid(
            record,
            f"holds {n} items, {len(slate.pctr)} pctr and {len(slate.features)} bytes of features",
        )
    pctr = np.asarray(slate.pctr, dtype=np.float64)
    if not ((pctr >= 0) & (pctr <= 1)).all():
        raise _invalid(record, "has a pctr outside [0, 1]")
    return Slate(
        request_id=slate.request_id,
        # The log's clock bounds the ranker's: a wrong one must not empty the window.
        served_time_ms=min(slate.served_time_ms, record.timestamp_ms),
        seen_ms=record.timestamp_ms,
        group=Group(slate.model_id or "none", slate.variant or "none"),
        spec_id=slate.spec_id,
        item_ids=tuple(slate.item_id),
        pctr=tuple(slate.pctr),
        features=np.frombuffer(slate.features, dtype="<f4").reshape(n, -1),
        degraded=tuple(slate.degraded),
    )


def decode_labels(record: Record) -> Labels:
    """The label changes in a record of `labels` that touch an impression or a click.

    Raises: InvalidBatch if it is not a LabelBatch, or its columns contradict each other.
    """
    try:
        batch = pb.LabelBatch.FromString(record.value or b"")
    except DecodeError:
        raise _invalid(record, "is not a LabelBatch") from None
    columns = (
        batch.request_id,
        batch.item_id,
        batch.impression_time_ms,
        batch.old_status,
        batch.new_status,
        batch.old_clicked,
        batch.new_clicked,
    )
    if len({len(column) for column in columns}) > 1:
        raise _invalid(record, "has columns of different lengths")
    if max((*batch.request_id, *batch.item_id), default=-1) >= len(batch.strings):
        raise _invalid(record, f"points past its {len(batch.strings)} strings")
    changes = []
    for request, item, time_ms, was, now, clicked0, clicked1 in zip(*columns, strict=True):
        impressions = int(now != pb.LABEL_ABSENT) - int(was != pb.LABEL_ABSENT)
        clicks = clicked1 - clicked0
        if impressions or clicks:
            change = LabelChange(
                batch.strings[request],
                batch.strings[item],
                min(time_ms, record.timestamp_ms),
                record.timestamp_ms,
                impressions,
                clicks,
            )
            changes.append(change)
    return Labels(
        batch.source_partition,
        batch.first_offset,
        batch.source_offset,
        record.timestamp_ms,
        tuple(changes),
    )


def _invalid(record: Record, problem: str) -> InvalidBatch:
    return InvalidBatch(
        f"invalid_batch: {record.topic}[{record.partition}]@{record.offset} {problem}."
        " Not counted. Its writer has a bug."
    )
