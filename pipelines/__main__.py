"""`python -m pipelines run`: log -> rows -> models -> evidence -> registry -> services."""

from __future__ import annotations

import asyncio
import getpass
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from pipelines.evaluate.report import write_report
from pipelines.features.lake import read_events, read_items
from pipelines.features.replay import ItemFacts, TrainingRows, Windows, training_rows
from pipelines.promote.publish import publish
from pipelines.promote.registry import LEDGER, Promotion, prepare, register
from pipelines.train.steps import Trained, hold_unobserved, train
from rankstream.adapters.kafka import EventProducer
from rankstream.contracts.columns import TimeLimits
from rankstream.errors import RankstreamError

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def _pipelines() -> None:
    """Batch jobs of rankstream."""


@app.command()
def run(
    lake: Annotated[Path, typer.Option(help="folder of Delta tables")],
    artifacts: Annotated[Path, typer.Option(help="folder to write artefacts to")],
    registry: Annotated[str, typer.Option(help="MLflow registry, sqlite:///<path>")],
    until_ms: Annotated[
        int | None, typer.Option("--until-ms", help="read events up to here; default: now")
    ] = None,
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port")] = "127.0.0.1:9092",
    seed: Annotated[int, typer.Option(help="of everything random")] = 1,
    why: Annotated[str, typer.Option(help="reason, for the ledger")] = "scheduled training",
) -> None:
    """Train both rankers and retrieval, register and publish them; a JSON summary at the end."""
    console = Console(stderr=True)
    created_ms = time.time_ns() // 1_000_000
    artifacts = artifacts.absolute()
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as beside,
        Progress(console=console, transient=True) as bar,
    ):
        # The registry needs seconds to import and to migrate: it does so while rows are made.
        ready = beside.submit(prepare, registry)
        task = bar.add_task("lake", total=None)
        rows, items = _rows(lake, bootstrap, until_ms or created_ms, bar, task)
        trained = train(
            rows,
            items,
            artifacts,
            created_ms=created_ms,
            seed=seed,
            step=lambda name: bar.update(task, description=name),
        )
        report = artifacts / "reports" / str(created_ms)
        _report(report, trained)
        bar.update(task, description="registry")
        ready.result()
        promotions = beside.submit(
            register,
            registry,
            trained.artifacts,
            artifacts / LEDGER,
            time_ms=created_ms,
            who=getpass.getuser(),
            why=why,
        ).result()
    asyncio.run(_publish(bootstrap, promotions))
    typer.echo(json.dumps(_summary(trained, promotions, report)))


def _rows(
    lake: Path, bootstrap: str, until_ms: int, bar: Progress, task: TaskID
) -> tuple[TrainingRows, dict[str, ItemFacts]]:
    events = read_events(lake, until_ms=until_ms, limits=TimeLimits())
    items = asyncio.run(read_items(bootstrap))

    def progress(done: int, total: int) -> None:
        bar.update(task, description="rows", completed=done, total=total)

    rows = training_rows(events, items, until_ms=until_ms, windows=Windows(), progress=progress)
    return hold_unobserved(rows, events.kind), items


def _report(folder: Path, trained: Trained) -> None:
    facts = {
        "data version": trained.data_version,
        "split at": f"{trained.split_ms} ms",
        "rows": f"{trained.train_rows} to train, {trained.test_rows} to test",
    }
    write_report(folder, "Models", facts, trained.metrics)


def _summary(trained: Trained, promotions: list[Promotion], report: Path) -> dict[str, object]:
    return {
        "metrics": trained.metrics,
        "models": {f"{p.role}/{p.alias}": p.model_id for p in promotions},
        "data_version": trained.data_version,
        "split_ms": trained.split_ms,
        "train_rows": trained.train_rows,
        "test_rows": trained.test_rows,
        "report": str(report),
    }


async def _publish(bootstrap: str, promotions: list[Promotion]) -> None:
    producer = EventProducer(bootstrap, client_id="pipelines")
    try:
        await publish(promotions, producer)
    finally:
        await producer.flush_and_close()


def main() -> int:
    """Run the command; a named error is one line on stderr and exit code 1."""
    try:
        app()
    except RankstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
