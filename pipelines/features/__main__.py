"""`python -m pipelines.features`: feature definitions in Feast, their history, and the lake."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from pipelines import command
from pipelines.features.lake_command import LAKE, Lake
from pipelines.features.lake_command import app as lake_app
from rankstream.contracts.columns import TimeLimits
from rankstream.features import spec

app = typer.Typer(add_completion=False, help=__doc__)
app.add_typer(lake_app, name="lake")
Offline = Annotated[Path, typer.Option(help="history of the views, Parquet")]
Until = Annotated[int | None, typer.Option("--until-ms", help="event time; default: now")]
RedisUrl = Annotated[str, typer.Option(help="redis://host:port/database")]
Registry = Annotated[Path, typer.Option(help="file that holds Feast's registry")]
REDIS_URL = "redis://127.0.0.1:6379/0"
REGISTRY = Path(".run/state/feast/registry.db")
OFFLINE = LAKE / "feature_rows"
BATCH = LAKE / "batch"
DATE = ["%Y-%m-%d"]


class EngineName(StrEnum):
    """Where queries run."""

    DUCKDB = "duckdb"
    SPARK = "spark"


@app.command("apply")
def apply_command(
    redis_url: RedisUrl = REDIS_URL,
    registry: Registry = REGISTRY,
    offline: Offline = OFFLINE,
) -> None:
    """Register entities, views and the feature service; a JSON summary at the end."""
    with command.steps() as step:
        step("Feast definitions", 0, 2)
        # Feast takes seconds to import: they are seen as a step.
        from pipelines.features.store import apply as apply_definitions

        step("Feast definitions", 1, 2)
        store = apply_definitions(redis_url=redis_url, registry=registry, offline=offline)
        step("Feast definitions", 2, 2)
    summary = {
        "registry": str(registry),
        "spec_id": spec.SPEC_ID,
        "feature_views": sorted(view.name for view in store.list_feature_views()),
        "feature_services": sorted(service.name for service in store.list_feature_services()),
    }
    typer.echo(json.dumps(summary))


@app.command()
def show(
    user_id: Annotated[str, typer.Option(help="whose features")],
    item_id: Annotated[str, typer.Option(help="of which item")],
    category: Annotated[str, typer.Option(help="the item's category")],
    query: Annotated[str, typer.Option(help="what was asked for")] = "",
    location: Annotated[str, typer.Option(help="where")] = "",
    redis_url: RedisUrl = REDIS_URL,
    registry: Registry = REGISTRY,
) -> None:
    """Print what Feast says a ranker would see now, as JSON."""
    from pipelines.features.store import open_store

    store = open_store(redis_url=redis_url, registry=registry)
    entity = {
        "user_id": user_id,
        "item_id": item_id,
        "category": category,
        "query": query,
        "location": location,
        "as_of_ms": time.time_ns() // 1_000_000,
    }
    found = store.get_online_features(
        features=store.get_feature_service("ranker"),
        entity_rows=[entity],
        full_feature_names=True,
    ).to_dict()
    typer.echo(
        json.dumps({name: found[f"ranker_features__{name}"][0] for name in spec.NAMES}, indent=1)
    )


@app.command("backfill")
def backfill_command(
    lake: Lake = LAKE,
    offline: Offline = OFFLINE,
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port: the items")] = "127.0.0.1:9092",
    until_ms: Until = None,
    every_ms: Annotated[
        int, typer.Option(min=1, help="1: a row for every change; more: the last of each so long")
    ] = 1,
) -> None:
    """Replay the lake's events into feature rows over time, in place of those there are."""
    from pipelines.features.backfill import backfill
    from pipelines.features.lake import read_items, read_log
    from pipelines.features.replay import Windows

    until_ms = until_ms or time.time_ns() // 1_000_000
    with command.steps() as step:
        step("events", 0, 1)
        log = read_log(lake, until_ms=until_ms, limits=TimeLimits())
        items = asyncio.run(read_items(bootstrap))
        step("events", 1, 1)
        written = backfill(
            log,
            items,
            offline,
            until_ms=until_ms,
            every_ms=every_ms,
            windows=Windows(),
            step=step,
        )
    typer.echo(json.dumps({"events": len(log.columns), "rows": written, "offline": str(offline)}))


@app.command("materialize")
def materialize_command(
    redis_url: RedisUrl = REDIS_URL,
    registry: Registry = REGISTRY,
    offline: Offline = OFFLINE,
    until_ms: Until = None,
) -> None:
    """Write each entity's newest feature row to Redis, but never over a newer streamed one."""
    with command.steps() as step:
        step("Feast", 0, 1)
        from pipelines.features.materialize import materialize
        from pipelines.features.store import open_store

        store = open_store(redis_url=redis_url, registry=registry)
        step("Feast", 1, 1)
        until_ms = until_ms or time.time_ns() // 1_000_000
        done = materialize(store, offline, until_ms=until_ms, step=step)
    typer.echo(json.dumps({view: asdict(counts) for view, counts in done.items()}))


@app.command("batch")
def batch_command(
    lake: Lake = LAKE,
    out: Annotated[Path, typer.Option(help="folder of Parquet, by table and date")] = BATCH,
    engine: Annotated[EngineName, typer.Option(help="where the queries run")] = EngineName.DUCKDB,
    from_date: Annotated[
        datetime | None, typer.Option(formats=DATE, help="UTC; default: six days before the last")
    ] = None,
    until_date: Annotated[
        datetime | None, typer.Option(formats=DATE, help="UTC; default: where the log has got to")
    ] = None,
    memory_gb: Annotated[float, typer.Option(min=0.5, help="of DuckDB; the rest is on disk")] = 4.0,
    threads: Annotated[int, typer.Option(min=1, help="of DuckDB")] = 2,
) -> None:
    """Write daily features, final labels and both joined; a line of JSON for each new folder."""
    from pipelines.features.batch_job import duckdb_engine, run_batch, spark_engine
    from pipelines.features.replay import Windows

    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        step = stack.enter_context(command.steps())
        if engine is EngineName.SPARK:
            chosen = stack.enter_context(spark_engine())
        else:
            scratch = Path(stack.enter_context(TemporaryDirectory(dir=out, prefix=".scratch-")))
            chosen = stack.enter_context(
                duckdb_engine(scratch, memory_gb=memory_gb, threads=threads)
            )
        made = run_batch(
            chosen,
            lake,
            out,
            from_date=from_date.date() if from_date else None,
            until_date=until_date.date() if until_date else None,
            windows=Windows(),
            limits=TimeLimits(),
            step=step,
        )
    for folder in made:
        typer.echo(json.dumps(asdict(folder)))


if __name__ == "__main__":
    sys.exit(command.run(app))
