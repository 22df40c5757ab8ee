"""One Delta table of the lake: a commit holds rows and the offsets to go on from, both or neither.

The offsets are Delta application transactions, so that the table itself says where its writer goes
on, and two writers of one partition conflict. What a writer that died had written and not committed
is in no version; `python -m pipelines.features lake retain` deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import CommitProperties, DeltaTable, Field, Schema, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from rankstream.adapters.kafka import Record
from rankstream.contracts.high_water import HighWater
from rankstream.errors import Conflict, DependencyUnavailable, Fenced
from services.features.lake_columns import LakeTable, Rows
from services.features.lake_labels import STARTS, label_changes, merge, upserts
from services.features.lake_rows import TICK

T = TypeVar("T")

CHECKPOINT_EVERY: Final = 100
# Others may commit between our reading the table and our commit: maintenance, a newer writer.
TRIES_MAX: Final = 5
TARGET_BYTES: Final = 128_000_000


def app_id(topic: str, partition: int) -> str:
    """Name of a partition's writer in the table's transactions: its version is the next offset."""
    return f"lake:{topic}:{partition}"


def source_id(topic: str, source_partition: int) -> str:
    """Name of a source partition in the transactions: how many of its records were folded."""
    return f"lake:{topic}:source:{source_partition}"


class DeltaLog:
    """One Delta table and the offsets that its versions hold. Blocking: call it in a thread."""

    def __init__(self, folder: str, table: LakeTable) -> None:
        self._path = Path(folder) / table.topic
        self._of = table

    def open(self, partitions: Sequence[int]) -> dict[int, int]:
        """Create the table, or the columns that it lacks; offset to go on from by partition.

        Raises:
            Conflict: the table there is another than ours; it is left as it is.
            DependencyUnavailable: the folder cannot be read or written.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._table = DeltaTable.create(
                str(self._path),
                schema=self._of.schema,
                mode="ignore",
                partition_by=list(self._of.partition_by),
                name=self._of.topic,
                configuration={"delta.checkpointInterval": str(CHECKPOINT_EVERY)},
            )
            self._table.update_incremental()
            self._evolve()
        except (OSError, DeltaError) as error:
            raise self._unavailable(error) from None
        return {p: self._version(app_id(self._of.topic, p)) for p in partitions}

    def _evolve(self) -> None:
        """Add our columns to a table that an older version made."""
        ours = Schema.from_arrow(self._of.schema)
        theirs = {field.name: field for field in self._table.schema().fields}
        other = [f.name for f in ours.fields if f.name in theirs and theirs[f.name].type != f.type]
        found = tuple(self._table.metadata().partition_columns)
        if other or found != self._of.partition_by:
            raise Conflict(
                f"conflict: lake table {self._path} is partitioned by {found} (this version:"
                f" {self._of.partition_by}) and has other types in columns {other}."
                " Nothing is written. Move the folder away: the table is made again from the log."
            )
        missing = [
            Field(f.name, f.type, nullable=True) for f in ours.fields if f.name not in theirs
        ]
        if missing:
            self._table.alter.add_columns(missing)

    def rows(self) -> int:
        """Rows of the current version, ticks aside."""
        data = self._table.to_pyarrow_dataset()
        if "kind" in data.schema.names:
            return int(data.count_rows(filter=ds.field("kind") != TICK))
        return int(data.count_rows())

    def append(
        self, records: Sequence[Record], before: Mapping[int, int], after: Mapping[int, int]
    ) -> tuple[int, int]:
        """Commit rows of `records` if the table stands at `before`; it stands at `after` then.

        Returns: rows that the table has more, ticks aside, and records skipped because they cannot
            be decoded.

        Raises:
            Fenced: another writer has moved one of these partitions; nothing is committed.
            DependencyUnavailable: the folder cannot be written, or others commit all the time;
                nothing is committed.
        """
        offsets = {app_id(self._of.topic, partition): to for partition, to in after.items()}

        def commit() -> tuple[int, int]:
            self._check(before)
            if self._of.upsert:
                return self._replace(records, offsets)
            return self._add(self._of.rows_of(records), offsets)

        return self._on_newest(commit)

    def compact(self, partitions: Sequence[int]) -> int:
        """Put small files together, of labels those of these partitions; how many there were.

        Each commit adds a file or some, and reading the table costs by the file.

        Raises: DependencyUnavailable: others commit all the time, or the folder cannot be written;
            the table is as it was.
        """
        ours = [("partition", "in", [str(partition) for partition in partitions])]

        def commit() -> int:
            done = self._table.optimize.compact(
                partition_filters=ours if "partition" in self._of.partition_by else None,
                target_size=TARGET_BYTES,
            )
            return int(done["numFilesRemoved"])

        return self._on_newest(commit)

    def _on_newest(self, commit: Callable[[], T]) -> T:
        """What `commit` returns on the newest version, read anew for each of TRIES_MAX tries."""
        conflict = ""
        for _ in range(TRIES_MAX):
            try:
                self._table.update_incremental()
                return commit()
            except CommitFailedError as error:
                conflict = str(error)
            except (OSError, DeltaError) as error:
                raise self._unavailable(error) from None
        raise self._unavailable(conflict)

    def _check(self, before: Mapping[int, int]) -> None:
        for partition, offset in before.items():
            found = self._version(app_id(self._of.topic, partition))
            if found != offset:
                raise Fenced(
                    f"fenced: lake table {self._path}: partition {partition} is at {found},"
                    f" expected {offset}. Nothing is committed."
                    " Another worker owns the partition: stop."
                )

    def _add(self, rows: Rows, versions: Mapping[str, int]) -> tuple[int, int]:
        write_deltalake(
            self._table,
            rows.table,
            mode="append",
            # A newer writer's columns, unknown to us, are null in our rows.
            schema_mode="merge",
            commit_properties=_properties(versions),
        )
        ticks = 0
        if "kind" in rows.table.schema.names:
            ticks = pc.sum(pc.equal(rows.table["kind"], TICK)).as_py() or 0
        return rows.table.num_rows - ticks, rows.skipped

    def _replace(self, records: Sequence[Record], offsets: Mapping[str, int]) -> tuple[int, int]:
        topic = self._of.topic
        # Labels are in the partition of their source.
        sources = {record.partition for record in records}
        folded = {source: self._version(source_id(topic, source)) for source in sources}
        mark = HighWater({source: count - 1 for source, count in folded.items() if count})
        changes = label_changes(records, mark)
        counts = {source_id(topic, source): at + 1 for source, at in mark.offsets().items()}
        versions = {**offsets, **counts}
        rows = upserts(changes.table)
        if not rows.num_rows:
            return self._add(Rows(rows.drop_columns(STARTS), changes.skipped), versions)
        return merge(self._table, rows, _properties(versions)), changes.skipped

    def _version(self, name: str) -> int:
        return self._table.transaction_version(name) or 0

    def _unavailable(self, why: object) -> DependencyUnavailable:
        # Delta draws its causes in lines below the first.
        first = next(iter(str(why).splitlines()), "")
        return DependencyUnavailable(
            f"dependency_unavailable: lake table {self._path}: {first}."
            " Nothing is committed. Free space or mend the folder."
        )


def _properties(versions: Mapping[str, int]) -> CommitProperties:
    return CommitProperties(
        app_transactions=[Transaction(name, version) for name, version in versions.items()]
    )
