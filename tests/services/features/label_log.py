"""Records of `labels` as a features worker sends them, and where they lead to, told slowly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rankstream.adapters.kafka import Record
from rankstream.pb import events_pb2 as pb

APPEND_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z
DAY_MS = 86_400_000

Change = tuple[str, int, int, int, int]  # item, impression time, old status, new status, clicked
# partition, user, item, impression time, status, clicked, source offset
Row = tuple[int, str, str, int, int, int, int]


def a_label_record(
    changes: Sequence[Change],
    *,
    offset: int,
    source_offset: int,
    first_offset: int | None = None,
    partition: int = 0,
    day: int = 0,
) -> Record:
    """One record of `labels`: what a run did to ann's labels in request r."""
    items = [change[0] for change in changes]
    batch = pb.LabelBatch(
        source_partition=partition,
        first_offset=source_offset if first_offset is None else first_offset,
        source_offset=source_offset,
        strings=["", "ann", "r", *items],
        user_id=[1] * len(changes),
        request_id=[2] * len(changes),
        item_id=[3 + k for k in range(len(changes))],
        impression_time_ms=[change[1] for change in changes],
        position=[4] * len(changes),
        old_status=[pb.LabelStatus.Name(change[2]) for change in changes],
        new_status=[pb.LabelStatus.Name(change[3]) for change in changes],
        old_clicked=[0] * len(changes),
        new_clicked=[change[4] for change in changes],
        old_purchased=[0] * len(changes),
        new_purchased=[0] * len(changes),
        old_value_micros=[0] * len(changes),
        new_value_micros=[1_000 * change[4] for change in changes],
        watermark_ms=3,
    )
    append_ms = APPEND_MS + day * DAY_MS
    return Record("labels", partition, offset, append_ms, b"", batch.SerializeToString())


@dataclass
class LabelLog:
    """A random log of `labels`: `records`, with some sent twice, and `rows` as they end."""

    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def a_label_log(seed: int, *, records: int, partitions: int = 2) -> LabelLog:
    """Labels of few items, shown again once final. Runs may change nothing; every fourth record is
    sent twice, and every fifth has one after it that a worker cut that had lost the partition."""
    rng = np.random.default_rng(seed)
    log = LabelLog()
    offsets, sources = [0] * partitions, [0] * partitions
    opened: dict[tuple[int, str], int] = {}  # partition, item -> its row while provisional
    for n in range(records):
        partition = int(rng.integers(partitions))
        first = sources[partition]
        last = first + int(rng.integers(3))
        sources[partition] = last + 1
        changes: list[Change] = []
        for item in rng.permutation(5)[: rng.integers(0, 4)].tolist():
            key, time_ms = (partition, f"i{item}"), 100 * n
            clicked = int(rng.integers(2))
            place = opened.get(key)
            status = pb.LABEL_FINAL if place is not None and rng.random() < 0.5 else 1
            old = pb.LABEL_ABSENT if place is None else pb.LABEL_PROVISIONAL
            changes.append((key[1], time_ms, old, status, clicked))
            row = (partition, "ann", key[1], time_ms, int(status), clicked, last)
            if place is None:
                opened[key] = len(log.rows)
                log.rows.append(row)
            else:
                log.rows[place] = row
            if status == pb.LABEL_FINAL:
                del opened[key]
        sent = [(first, last, changes)] * (1 + (n % 4 == 3))
        if n % 5 == 4:
            sent.append((first, last + 9, [("lost", 1, pb.LABEL_ABSENT, pb.LABEL_FINAL, 1)]))
        for begins, ends, what in sent:
            record = a_label_record(
                what,
                offset=offsets[partition],
                first_offset=begins,
                source_offset=ends,
                partition=partition,
                day=n // 20,
            )
            log.records.append(record)
            offsets[partition] += 1
    return log
