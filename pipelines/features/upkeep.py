"""What keeps the lake small: few big files, no old days, nothing that no version holds.

Writers go on meanwhile: none of this moves an offset or changes a row that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from rankstream.errors import Conflict, NotFound

T = TypeVar("T")

TARGET_BYTES: Final = 128_000_000
# A writer may commit between our reading the table and our commit.
TRIES_MAX: Final = 5
DATE: Final = "date"


@dataclass(frozen=True)
class Contents:
    """One table: its version, and what the version's files hold."""

    table: str
    version: int
    rows: int
    files: int
    bytes: int
    from_date: str
    until_date: str


@dataclass(frozen=True)
class Compacted:
    """Files of one table that were many, and what they became."""

    table: str
    removed: int
    added: int


@dataclass(frozen=True)
class Retained:
    """Files dropped as too old, and files deleted that no kept version holds."""

    table: str
    dropped: int
    deleted: int


def tables_in(lake: Path, only: str = "") -> list[tuple[str, DeltaTable]]:
    """The Delta tables of the lake by name, or the one that is asked for.

    Raises: NotFound: there is none.
    """
    names = [only] if only else sorted(p.parent.name for p in lake.glob("*/_delta_log"))
    try:
        found = [(name, DeltaTable(str(lake / name))) for name in names]
    except TableNotFoundError:
        found = []
    if not found:
        raise NotFound(
            f"not_found: {lake} has no table {only or 'at all'}. Nothing was done."
            " Name the folder that the features service writes to (FEATURES_LAKE)."
        )
    return found


def rows_at(table: DeltaTable, version: int | None, limit: int) -> list[dict[str, object]]:
    """The first rows of a version, by default the current one.

    Raises: NotFound: there is no such version, or its files are vacuumed.
    """
    try:
        if version is not None:
            table.load_as_version(version)
        rows: list[dict[str, object]] = table.to_pyarrow_dataset().head(limit).to_pylist()
    except (DeltaError, OSError) as error:
        raise NotFound(
            f"not_found: {table.table_uri} version {version}: {first_line(error)}. Nothing read."
            " Its files are gone, or it never was; `lake show` prints the current version."
        ) from None
    return rows


def contents(name: str, table: DeltaTable) -> Contents:
    """What the current version holds."""
    files = pa.table(table.get_add_actions(flatten=True))
    dates = pc.min_max(files[f"partition.{DATE}"]).as_py() if _has_dates(table) else {}
    return Contents(
        table=name,
        version=int(table.version()),
        rows=int(pc.sum(files["num_records"]).as_py() or 0),
        files=files.num_rows,
        bytes=int(pc.sum(files["size_bytes"]).as_py() or 0),
        from_date=dates.get("min") or "",
        until_date=dates.get("max") or "",
    )


def compact(name: str, table: DeltaTable, *, target_bytes: int = TARGET_BYTES) -> Compacted:
    """Put the files of each partition together, up to about `target_bytes` each.

    Raises: Conflict: writers were faster each time; some partitions may be done.
    """
    done = _tried(table, lambda: table.optimize.compact(target_size=target_bytes))
    return Compacted(name, int(done["numFilesRemoved"]), int(done["numFilesAdded"]))


def retain(name: str, table: DeltaTable, *, days: int, now_ms: int, keep_hours: int) -> Retained:
    """Drop whole days that are older than `days`, then files that no version needs.

    Args:
        days: today and so many days before it stay; a table without dates stays whole.
        keep_hours: files that left the table later than this stay, for readers of older versions
            and writers that are about to commit.

    Raises: Conflict: writers were faster each time.
    """
    dropped = 0
    if _has_dates(table):
        first = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=days)
        # A predicate over the files' partitions alone removes files and reads none.
        old = f"{DATE} < '{first.date().isoformat()}'"
        dropped = int(_tried(table, lambda: table.delete(old))["num_removed_files"])
    deleted = _tried(
        table,
        lambda: table.vacuum(
            retention_hours=keep_hours,
            dry_run=False,
            enforce_retention_duration=False,
            # What a writer that died left behind, too.
            full=True,
        ),
    )
    return Retained(name, dropped, len(deleted))


def first_line(error: Exception) -> str:
    """What Delta says, without its drawing."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


def _has_dates(table: DeltaTable) -> bool:
    return DATE in table.metadata().partition_columns


def _tried(table: DeltaTable, action: Callable[[], T]) -> T:
    problem = ""
    for _ in range(TRIES_MAX):
        try:
            table.update_incremental()
            return action()
        except CommitFailedError as error:
            problem = first_line(error)
        except DeltaError as error:
            problem = first_line(error)
            break
    raise Conflict(
        f"conflict: {table.table_uri}: {problem}. The table is as its writers left it."
        " Run the command again when they write less."
    )
