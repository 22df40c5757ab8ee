"""`python -m pipelines run`: log -> rows -> models -> evidence -> registry -> services."""

from __future__ import annotations

import asyncio
import getpass
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from pipelines import command
from pipelines.evaluate.judge import Decision, Rules, judge
from pipelines.evaluate.report import write_comparison, write_report
from pipelines.features.lake import Logged, read_items, read_log
from pipelines.features.provenance import Reading, remember
from pipelines.features.replay import ItemFacts, TrainingRows, Windows, training_rows
from pipelines.promote.ledger import LEDGER, Promotion
from pipelines.promote.publish import publish
from pipelines.promote.registry import prepare, register
from pipelines.train.artefact import data_version
from pipelines.train.sources import TowerFamily
from pipelines.train.steps import Family, Trained, hold_unobserved, train
from pipelines.validate.gate import gate
from pipelines.validate.reference import champion_reference
from rankstream.adapters.kafka import EventProducer
from rankstream.contracts.columns import TimeLimits

VALIDATION: Final = "validation"

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
    champion: Annotated[Family, typer.Option(help="ranker that serves")] = (
        Family.LOGISTIC_REGRESSION
    ),
    challenger: Annotated[Family, typer.Option(help="ranker to compare with it")] = Family.XGBOOST,
    retrieval: Annotated[TowerFamily, typer.Option(help="towers of the index")] = (
        TowerFamily.PURE_SVD
    ),
    negatives: Annotated[
        float, typer.Option(help="share of impressions without a click to train on; corrected for")
    ] = 1.0,
    why: Annotated[str, typer.Option(help="reason, for the ledger")] = "scheduled training",
    compare: Annotated[
        bool,
        typer.Option(help="refuse rows that are far from those that the champion was trained on"),
    ] = True,
) -> None:
    """Validate rows, train both rankers and retrieval, register and publish them.

    A JSON summary at the end; what was checked of the rows is in <artifacts>/validation.
    """
    created_ms = time.time_ns() // 1_000_000
    artifacts = artifacts.absolute()
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as beside,
        command.steps() as step,
    ):
        # The registry needs seconds to import and to migrate: it does so while rows are made.
        ready = beside.submit(prepare, registry)
        until_ms = until_ms or created_ms
        rows, items, log = _rows(lake, bootstrap, until_ms, step)
        evidence = artifacts / VALIDATION
        gate(
            rows,
            items,
            evidence,
            data_version=data_version(rows),
            as_of_ms=until_ms,
            reference=champion_reference(artifacts / LEDGER, evidence) if compare else None,
        )
        trained = train(
            rows,
            items,
            artifacts,
            created_ms=created_ms,
            seed=seed,
            step=step,
            champion=champion,
            challenger=challenger,
            negatives=negatives,
            retrieval=retrieval,
            categories={item_id: facts.category for item_id, facts in items.items()},
        )
        reading = Reading(trained.data_version, created_ms, until_ms, log.version, log.ends())
        remember(lake, reading, items)
        report = artifacts / "reports" / str(created_ms)
        decision = judge(trained.comparison, Rules())
        _report(report, trained, decision)
        step("registry", 0, 2)
        ready.result()
        step("registry", 1, 2)
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
        step("registry", 2, 2)
    typer.echo(json.dumps(_summary(trained, decision, promotions, report)))


def _rows(
    lake: Path, bootstrap: str, until_ms: int, step: command.Step
) -> tuple[TrainingRows, dict[str, ItemFacts], Logged]:
    log = read_log(lake, until_ms=until_ms, limits=TimeLimits())
    items = asyncio.run(read_items(bootstrap))

    rows = training_rows(
        log.columns,
        items,
        until_ms=until_ms,
        windows=Windows(),
        progress=partial(step, "training rows"),
    )
    return hold_unobserved(rows, log.columns.kind), items, log


def _report(folder: Path, trained: Trained, decision: Decision) -> None:
    facts = {
        "data version": trained.data_version,
        "split at": f"{trained.split_ms} ms",
        "rows": f"{trained.train_rows} to train, {trained.test_rows} to test",
    }
    write_report(folder, "Models", facts, trained.metrics)
    write_comparison(folder, "Rankers compared", facts, trained.comparison, decision)


def _summary(
    trained: Trained, decision: Decision, promotions: list[Promotion], report: Path
) -> dict[str, object]:
    return {
        "judged": {"champion": decision.champion, "why": decision.reason},
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


if __name__ == "__main__":
    sys.exit(command.run(app))
