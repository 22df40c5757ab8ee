"""The `labels` table: one row per label as it stands now, replaced as its changes come.

A label is an impression of (user_id, request_id, item_id). Its first change starts a row, the later
ones replace it, the last makes it final; an impression of the same key after that is a new label
and a new row. So of the rows of a key at most one is provisional, and that one a change replaces.

The files' partitions are `partition` of the topic, so that the owners of different partitions never
touch the same file, `date` of the append of a label's first change, and `status`: a commit writes
the provisional labels anew, as many as are open, and never the final ones, as many as there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable

from rankstream.adapters.kafka import Record
from rankstream.contracts.high_water import HighWater
from rankstream.pb import events_pb2 as pb
from services.features.lake_columns import LOG, Rows, log_columns, parsed, table_of, texts_of

PARTITION_BY: Final = ("partition", "date", "status")

_KEY: Final = ("user_id", "request_id", "item_id")
_STATE: Final = ("status", "clicked", "purchased", "value_micros")
_NUMBERS: Final = ("impression_time_ms", "position", *(f"new_{name}" for name in _STATE))

# Changes as they are read: what a label becomes, and whether the change is its first.
CHANGES: Final = pa.schema(
    [
        *LOG,
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
        ("watermark_ms", pa.int64()),
        *((name, pa.string()) for name in _KEY),
        ("impression_time_ms", pa.int64()),
        ("position", pa.int32()),
        ("old_status", pa.int8()),
        ("new_status", pa.int8()),
        ("new_clicked", pa.int8()),
        ("new_purchased", pa.int8()),
        ("new_value_micros", pa.int64()),
    ]
)
# The table: where in the log the newest change stands, then the label.
LABELS: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("date", pa.string()),
        ("offset", pa.int64()),
        ("append_time_ms", pa.int64()),
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
        ("watermark_ms", pa.int64()),
        *((name, pa.string()) for name in _KEY),
        ("impression_time_ms", pa.int64()),  # the earliest that was seen
        ("position", pa.int32()),
        ("status", pa.int8()),  # pb.LabelStatus: 1 provisional, 2 final
        ("clicked", pa.int8()),
        ("purchased", pa.int8()),
        ("value_micros", pa.int64()),
    ]
)
STARTS: Final = "starts"
_KEPT: Final = frozenset(("partition", "date", *_KEY))
_MATCH: Final = " AND ".join(
    (
        "t.partition IN ({partitions})",
        # Files of final labels are not read.
        f"t.status = {pb.LABEL_PROVISIONAL}",
        f"NOT s.{STARTS}",
        "t.partition = s.partition",
        *(f"t.{name} = s.{name}" for name in _KEY),
    )
)


def label_changes(records: Sequence[Record], mark: HighWater | None = None) -> Rows:
    """Changes of labels, one row each, in the order of the records.

    Args:
        mark: the runs that the table has folded; records that do not follow them are left out,
            those that do move it on.
    """
    found = parsed(records, pb.LabelBatch)
    skipped = len(records) - len(found)
    mark = mark or HighWater()
    found = [
        (record, batch)
        for record, batch in found
        if mark.follow(batch.source_partition, batch.first_offset, batch.source_offset)
    ]
    batches = [batch for _, batch in found]
    lengths = [len(batch.user_id) for batch in batches]
    columns: dict[str, object] = {
        **log_columns([record for record, _ in found], lengths),
        **{
            name: np.repeat(np.array([getattr(b, name) for b in batches], np.int64), lengths)
            for name in ("source_partition", "source_offset", "watermark_ms")
        },
        **{
            name: texts_of([b.strings for b in batches], [getattr(b, name) for b in batches])
            for name in _KEY
        },
        **{
            name: [n for b in batches for n in getattr(b, name)]
            for name in (*_NUMBERS, "old_status")
        },
    }
    return Rows(table_of(columns, CHANGES), skipped)


def upserts(changes: pa.Table) -> pa.Table:
    """Where the changes lead to: rows of LABELS, and whether each starts with these changes."""
    last, starts = _last(changes)
    rows = changes.take(pa.array(last))
    columns = [
        rows[f"new_{field.name}" if field.name in _STATE else field.name].cast(field.type)
        for field in LABELS
    ]
    schema = LABELS.append(pa.field(STARTS, pa.bool_()))
    return pa.Table.from_arrays([*columns, pa.array(starts, pa.bool_())], schema=schema)


def _last(changes: pa.Table) -> tuple[npt.NDArray[np.intp], list[bool]]:
    """Place of each label's last change, and whether its first one is among these."""
    labels: list[tuple[int, bool]] = []
    current: dict[tuple[int, str, str, str], int] = {}
    keys = zip(*(changes[name].to_pylist() for name in ("partition", *_KEY)), strict=True)
    for place, (key, old) in enumerate(zip(keys, changes["old_status"].to_pylist(), strict=True)):
        known = current.get(key)
        if known is None or old == pb.LABEL_ABSENT:
            current[key] = len(labels)
            labels.append((place, old == pb.LABEL_ABSENT))
        else:
            labels[known] = (place, labels[known][1])
    return np.array([place for place, _ in labels], np.intp), [starts for _, starts in labels]


def merge(table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> int:
    """Replace or add these rows in one commit; how many were added."""
    partitions = sorted(set(rows["partition"].to_pylist()))
    merger = table.merge(
        rows,
        predicate=_MATCH.format(partitions=", ".join(map(str, partitions)) or "-1"),
        source_alias="s",
        target_alias="t",
        # Else files are not skipped by the least and the greatest key in them.
        streamed_exec=False,
        commit_properties=properties,
    )
    done = (
        merger.when_matched_update(
            {f"`{name}`": f"s.`{name}`" for name in LABELS.names if name not in _KEPT}
        )
        .when_not_matched_insert({f"`{name}`": f"s.`{name}`" for name in LABELS.names})
        .execute()
    )
    return int(done["num_target_rows_inserted"])
