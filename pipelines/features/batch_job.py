"""Run the daily tables of `batch.py` over the lake on an engine, a folder of Parquet for each day.

    <out>/user/date=2026-01-02/    counters and features as of the midnight that begins the day
    <out>/item/..., and so on for each of batch.ENTITIES
    <out>/labels/date=2026-01-02/  labels of that day's impressions, once they are final
    <out>/rows/date=2026-01-02/    the same labels, each with the features that its day began with

A folder is written beside its place and renamed, so one that is there is whole, and a run that was
cut short goes on where it stopped. `_batch.json` in it says how it was made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import ibis
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from ibis.expr.types import Table

from pipelines.command import Step
from pipelines.features import batch
from pipelines.features.replay import Windows
from rankstream import topics
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import Conflict, DependencyUnavailable, InvalidInput, InvalidRequest
from rankstream.features import spec

DAY_MS: Final = 86_400_000
# Of one Parquet file that DuckDB writes; Spark's are as many as its partitions.
SHARD_BYTES: Final = 128_000_000
MADE: Final = "_batch.json"


@dataclass(frozen=True)
class Engine:
    """How to read Parquet files as a table, keep a query's rows, and write them to a new folder."""

    name: str
    read: Callable[[list[str]], Table]
    keep: batch.Keep
    write: Callable[[Table, Path], None]


@dataclass(frozen=True)
class Made:
    """How a folder was made; `lake_version` is that of the table `events`."""

    table: str
    date: str
    rows: int
    engine: str
    lake_version: int
    spec_id: str
    windows: Windows


@contextmanager
def duckdb_engine(scratch: Path, *, memory_gb: float, threads: int) -> Iterator[Engine]:
    """DuckDB in this process; what does not fit in memory lies in `scratch` meanwhile."""
    connection = ibis.duckdb.connect(
        scratch / "batch.duckdb",
        memory_limit=f"{memory_gb}GB",
        threads=threads,
        temp_directory=str(scratch),
        preserve_insertion_order=False,
    )

    def keep(query: Table) -> Table:
        return connection.create_table(ibis.util.gen_name("kept"), query)

    def write(query: Table, folder: Path) -> None:
        connection.to_parquet(query, folder, file_size_bytes=SHARD_BYTES, compression="zstd")

    try:
        yield Engine("duckdb", connection.read_parquet, keep, write)
    finally:
        connection.disconnect()


@contextmanager
def spark_engine() -> Iterator[Engine]:
    """Spark as it is set up: spark-submit's options or SPARK_CONF_DIR; else local, on all cores.

    Raises: DependencyUnavailable: PySpark is not in this environment.
    """
    try:
        from pyspark.sql import DataFrame, SparkSession
    except ImportError:
        raise DependencyUnavailable(
            "dependency_unavailable: pyspark is not installed here. Nothing was written."
            " Use the environment of Spark: make env-spark, then .run/spark/bin/python."
        ) from None
    session = SparkSession.builder.appName("rankstream-batch").getOrCreate()
    connection = ibis.pyspark.connect(session)

    # Not Ibis' own read and cache: they take one path, and free a table when Python forgets it.
    def named(frame: DataFrame) -> Table:
        name = ibis.util.gen_name("batch")
        frame.createOrReplaceTempView(name)
        return connection.table(name)

    def read(files: list[str]) -> Table:
        return named(session.read.parquet(*map(_address, files)))

    def keep(query: Table) -> Table:
        return named(session.sql(connection.compile(query)).persist())

    def write(query: Table, folder: Path) -> None:
        connection.to_parquet(query, _address(folder))

    try:
        yield Engine("spark", read, keep, write)
    finally:
        session.stop()


def _address(path: Path | str) -> str:
    """For Spark, whose own file system may be another one; it takes no escapes."""
    return f"file://{Path(path).absolute()}"


@dataclass(frozen=True)
class _Log:
    """The cached parts of the log that all days are made of."""

    reached_ms: int
    labels: Table
    additions: Table
    version: int


def run_batch(
    engine: Engine,
    lake: Path,
    out: Path,
    *,
    from_date: date | None,
    until_date: date | None,
    windows: Windows,
    limits: TimeLimits,
    step: Step,
) -> list[Made]:
    """Write what is due of each day and not there yet.

    Features of a day are due once the log has passed its midnight by the lateness; labels and rows
    once nothing can change the label of the day's last impression.

    Args:
        from_date: first day, UTC; default: six days before the last.
        until_date: last day; default: the one that the log has reached.

    Returns: what was written, in order.

    Raises:
        InvalidInput: there is no table `events`, or it has no event that keeps the contract.
        InvalidRequest: the first day is behind the last.
        Conflict: a folder that is there was made by another definition.
    """
    log = _read(engine, lake, windows, limits, step)
    until = until_date or _day(log.reached_ms)
    since = from_date or until - timedelta(days=6)
    if since > until:
        raise InvalidRequest(
            f"invalid_request: the first day {since} is behind the last, {until}. Nothing was"
            " written. Give --from-date and --until-date in order."
        )
    days = [since + timedelta(days=n) for n in range((until - since).days + 1)]
    done: list[Made] = []
    for place, day in enumerate(days):
        step("days", place, len(days))
        for table, query in _due(engine, log, out, day, windows):
            made = _write(engine, query, out / table / f"date={day}", table, day, log, windows)
            if made is not None:
                done.append(made)
    step("days", len(days), len(days))
    return done


def _read(engine: Engine, lake: Path, windows: Windows, limits: TimeLimits, step: Step) -> _Log:
    path = lake / topics.EVENTS.name
    step("log", 0, 3)
    try:
        delta = DeltaTable(str(path))
        files = delta.file_uris()
    except DeltaError as error:
        raise _unusable(path, f"cannot be read: {str(error)[:200]}") from None
    if not files:
        raise _unusable(path, "has no event")
    events = batch.allowed(engine.read(files).select(*batch.COLUMNS), limits)
    reached_ms = batch.reached_ms(events).execute()
    # Null, as the engine's client renders it.
    if reached_ms is None or reached_ms != reached_ms:
        raise _unusable(path, "has no event that keeps the contract")
    step("log", 1, 3)
    activity = engine.keep(batch.activity(events))
    step("log", 2, 3)
    feedback = batch.feedback(activity, windows, engine.keep)
    labels = engine.keep(batch.labels(feedback, windows))
    additions = engine.keep(batch.additions(activity, feedback))
    step("log", 3, 3)
    return _Log(int(reached_ms), labels, additions, delta.version())


def _unusable(path: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: lake table {path} {problem}. Nothing was written."
        " Start the features service, send events, wait for its flush."
    )


def _due(
    engine: Engine, log: _Log, out: Path, day: date, windows: Windows
) -> Iterator[tuple[str, Table]]:
    """Tables of a day that can no longer change, and their queries."""
    midnight_ms = _midnight_ms(day)
    if log.reached_ms < midnight_ms + windows.lateness_ms:
        return
    for entity in batch.ENTITIES:
        yield entity, batch.counters(log.additions, entity, midnight_ms)
    longest_ms = max(windows.click_window_ms, windows.conversion_window_ms)
    if log.reached_ms < midnight_ms + DAY_MS + longest_ms + windows.lateness_ms:
        return
    own = log.labels.filter(
        log.labels.impression_time_ms >= midnight_ms,
        log.labels.impression_time_ms < midnight_ms + DAY_MS,
    )
    yield "labels", own
    written = {
        entity: engine.read(_shards(out / entity / f"date={day}")) for entity in batch.ENTITIES
    }
    yield "rows", batch.rows_of(own, written)


def _write(
    engine: Engine, query: Table, folder: Path, table: str, day: date, log: _Log, windows: Windows
) -> Made | None:
    """Write a folder, unless it is there."""
    if folder.is_dir():
        _check(folder, windows)
        return None
    scratch = folder.with_name(f".{folder.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    engine.write(query, scratch)
    rows = sum(pq.read_metadata(shard).num_rows for shard in _shards(scratch))
    made = Made(table, str(day), rows, engine.name, log.version, spec.SPEC_ID, windows)
    (scratch / MADE).write_text(json.dumps(asdict(made)) + "\n", encoding="utf-8")
    scratch.rename(folder)
    return made


def _check(folder: Path, windows: Windows) -> None:
    made = json.loads((folder / MADE).read_text(encoding="utf-8"))
    wanted = {"spec_id": spec.SPEC_ID, "windows": asdict(windows)}
    found = {name: made[name] for name in wanted}
    if found != wanted:
        raise Conflict(
            f"conflict: {folder} was made with {found}, now it is {wanted}. It was left as it is."
            " Name another folder, or remove this one's days to make them anew."
        )


def _shards(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.parquet"))


def _midnight_ms(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return int(midnight.timestamp()) * 1_000


def _day(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).date()
