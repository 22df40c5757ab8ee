"""`python -m pipelines.features lake`: look at it, keep it small, read what trained a model."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from pipelines import command
from pipelines.features import upkeep
from pipelines.features.replay import TrainingRows, Windows
from rankstream.adapters.artifacts import read_manifest
from rankstream.errors import InvalidRequest
from rankstream.features import spec

app = typer.Typer(add_completion=False, help=__doc__)
LAKE: Final = Path(".run/state/lake")
Lake = Annotated[Path, typer.Option(help="folder of Delta tables")]
Table = Annotated[str, typer.Option(help="one of them; default: all")]


@app.command()
def show(lake: Lake = LAKE, table: Table = "") -> None:
    """Version, rows, files and days of each table; a line of JSON each."""
    for name, found in upkeep.tables_in(lake, table):
        typer.echo(json.dumps(asdict(upkeep.contents(name, found))))


@app.command()
def compact(
    lake: Lake = LAKE,
    table: Table = "",
    target_mb: Annotated[int, typer.Option(min=1, help="size of a file to aim at")] = (
        upkeep.TARGET_BYTES // 1_000_000
    ),
) -> None:
    """Put small files together; safe beside the writers. A line of JSON for each table."""
    tables = upkeep.tables_in(lake, table)
    with command.steps() as step:
        for done, (name, found) in enumerate(tables):
            step("compact", done, len(tables))
            result = upkeep.compact(name, found, target_bytes=target_mb * 1_000_000)
            typer.echo(json.dumps(asdict(result)))
        step("compact", len(tables), len(tables))


@app.command()
def retain(
    days: Annotated[int, typer.Option(min=1, help="days before today that stay")],
    lake: Lake = LAKE,
    table: Table = "",
    keep_hours: Annotated[
        int, typer.Option(min=1, help="replaced files stay so long: for older versions, writers")
    ] = 168,
) -> None:
    """Drop days (by arrival) that are older, delete what no version needs. JSON for each table."""
    tables = upkeep.tables_in(lake, table)
    now_ms = time.time_ns() // 1_000_000
    with command.steps() as step:
        for done, (name, found) in enumerate(tables):
            step("retain", done, len(tables))
            result = upkeep.retain(name, found, days=days, now_ms=now_ms, keep_hours=keep_hours)
            typer.echo(json.dumps(asdict(result)))
        step("retain", len(tables), len(tables))


@app.command("read")
def read_command(
    table: Annotated[str, typer.Option(help="which table")],
    lake: Lake = LAKE,
    version: Annotated[int | None, typer.Option(help="Delta version; default: the last")] = None,
    limit: Annotated[int, typer.Option(min=1, help="rows at most")] = 20,
) -> None:
    """Print rows as they were in a version of a table; a line of JSON each."""
    ((_, found),) = upkeep.tables_in(lake, table)
    for row in upkeep.rows_at(found, version, limit):
        typer.echo(json.dumps(row, default=_shown))


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


@app.command()
def rows(
    model: Annotated[str, typer.Option(help="folder of an artefact")] = "",
    data_version: Annotated[str, typer.Option(help="or what its manifest says")] = "",
    lake: Lake = LAKE,
    out: Annotated[Path | None, typer.Option(help="write the rows here, Parquet")] = None,
) -> None:
    """Make the rows that trained a model again; JSON says whether they are bit for bit the same."""
    if bool(model) == bool(data_version):
        raise InvalidRequest(
            "invalid_request: rows need --model or --data-version, one of them. Nothing was read."
            " `pipelines run` prints both."
        )
    # Their libraries take seconds to import, and are not in Spark's environment.
    from pipelines.features.logged import make_rows
    from pipelines.features.provenance import read_again, reading_of
    from pipelines.train.artefact import data_version as version_of
    from pipelines.train.steps import hold_unobserved

    wanted = data_version or read_manifest(model).data_version
    with command.steps() as step:
        step("events", 0, 1)
        reading = reading_of(lake, wanted)
        log, items, slates = read_again(lake, reading)
        step("events", 1, 1)
        found = make_rows(
            log.columns,
            items,
            slates,
            reading.which,
            from_ms=reading.from_ms,
            until_ms=reading.until_ms,
            windows=Windows(),
            progress=partial(step, "training rows"),
        )
        made = hold_unobserved(found.rows, log.columns.kind)
        if out is not None:
            pq.write_table(_table(made), out)
    summary = {
        "data_version": wanted,
        "same": version_of(made) == wanted,
        "rows": len(made),
        "clicked": int(made.clicked.sum()),
        "from_ms": int(made.time_ms[0]),
        "until_ms": reading.until_ms,
        "events_version": reading.events_version,
        "ends": reading.ends,
        **found.counts(),
    }
    typer.echo(json.dumps(summary))


def _table(made: TrainingRows) -> pa.Table:
    columns = {
        "user_id": pa.array(np.array(made.users, np.object_)[made.user], pa.string()),
        "item_id": pa.array(np.array(made.items, np.object_)[made.item], pa.string()),
        "impression_time_ms": made.time_ms,
        "clicked": made.clicked,
    }
    features = {name: made.features[:, place] for place, name in enumerate(spec.NAMES)}
    return pa.table({**columns, **features})
