"""`python -m pipelines run`: log -> rows -> models -> evidence -> registry -> services."""

from __future__ import annotations

import asyncio
import getpass
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from pipelines import command
from pipelines.alerts import CHECKS, TIMEOUT_S, failing_checks
from pipelines.evaluate.judge import Decision, Rules, judge
from pipelines.evaluate.report import write_comparison, write_report
from pipelines.features.lake import Logged, read_items, read_log
from pipelines.features.logged import Made, Slates, Which, make_rows, read_slates
from pipelines.features.provenance import Reading, remember
from pipelines.features.rating_tables import fit_rating_table, ratings_of
from pipelines.features.replay import ItemFacts, Windows, in_event_time
from pipelines.promote.connection import reach
from pipelines.promote.ledger import LEDGER, Promotion
from pipelines.promote.publish import publish
from pipelines.promote.registry import prepare, record, register
from pipelines.train.artefact import data_version
from pipelines.train.calibration import Method
from pipelines.train.corrections import Corrections, PositionBias
from pipelines.train.families import Family, Networks, Options
from pipelines.train.parameters import read_parameters, write_parameters
from pipelines.train.precision import Precision
from pipelines.train.shapes import Size
from pipelines.train.sources import TowerFamily
from pipelines.train.steps import Trained, hold_unobserved, split, train
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
    registry: Annotated[
        str, typer.Option(help="MLflow registry: sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    ],
    until_ms: Annotated[
        int | None, typer.Option("--until-ms", help="read events up to here; default: now")
    ] = None,
    from_ms: Annotated[
        int, typer.Option("--from-ms", help="train on impressions from here on; features know all")
    ] = 0,
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
    position_bias: Annotated[
        PositionBias,
        typer.Option(help="position as an input of training only, or weights of clicks by it"),
    ] = PositionBias.IGNORE,
    popularity_power: Annotated[
        float, typer.Option(help="0 to 1: rows count less the more often their item was shown")
    ] = 0.0,
    balanced_by: Annotated[
        str, typer.Option(help="feature of few values: each value's rows count the same in all")
    ] = "",
    calibration: Annotated[
        Method,
        typer.Option(help="of probabilities, on the last rows; best: only what holds later"),
    ] = Method.BEST,
    which: Annotated[
        Which,
        typer.Option("--rows", help="vectors as they were served, replayed ones, or what there is"),
    ] = Which.BOTH,
    parameters: Annotated[
        list[Path] | None, typer.Option(help="what `search` has written, for its family; repeat")
    ] = None,
    size: Annotated[Size, typer.Option(help="of wide_deep and mmoe")] = Size.SMALL,
    precision: Annotated[
        Precision, typer.Option(help="that wide_deep and mmoe are served in")
    ] = Precision.FLOAT32,
    purchase_weight: Annotated[
        float, typer.Option(help="what a purchase of value 1 is worth in clicks; mmoe", min=0.0)
    ] = 1.0,
    why: Annotated[str, typer.Option(help="reason, for the ledger")] = "scheduled training",
    if_alert: Annotated[
        str, typer.Option(help="URL of the monitor: train only if one of the checks fails there")
    ] = "",
    alert_check: Annotated[
        list[str] | None,
        typer.Option(help=f"which check; repeat; default: {', '.join(CHECKS)}"),
    ] = None,
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
    tuned = dict(map(read_parameters, parameters or []))
    if if_alert:
        with httpx.Client(timeout=TIMEOUT_S) as client:
            failing = failing_checks(if_alert, alert_check or CHECKS, client=client)
        if not failing:
            typer.echo(json.dumps({"trained": False, "why": f"no check fails at {if_alert}"}))
            return
        why = f"alert: {'; '.join(failing)}"
    reach(registry)
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as beside,
        command.steps() as step,
    ):
        # The registry needs seconds to import and to migrate: it does so while rows are made.
        ready = beside.submit(prepare, registry)
        until_ms = until_ms or created_ms
        made, items, log, slates = _rows(lake, bootstrap, (from_ms, until_ms), which, step)
        rows = made.rows
        evidence = artifacts / VALIDATION
        gate(
            rows,
            items,
            evidence,
            data_version=data_version(rows),
            as_of_ms=until_ms,
            reference=champion_reference(artifacts / LEDGER, evidence) if compare else None,
        )
        events = in_event_time(log.columns, until_ms=until_ms)
        trained = train(
            rows,
            items,
            artifacts,
            created_ms=created_ms,
            seed=seed,
            step=step,
            champion=champion,
            challenger=challenger,
            retrieval=retrieval,
            options=Options(
                negatives,
                Corrections(position_bias, popularity_power, balanced_by),
                calibration,
                tuned,
                Networks(size, precision, purchase_weight),
            ),
            rated=fit_rating_table(ratings_of(log.columns, events)),
        )
        reading = Reading(
            trained.data_version,
            created_ms,
            until_ms,
            log.version,
            log.ends(),
            which,
            *slates.ends(),
            from_ms,
        )
        remember(lake, reading, items)
        report = artifacts / "reports" / str(created_ms)
        decision = judge(trained.comparison, Rules())
        _report(report, trained, made, decision)
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
    typer.echo(json.dumps(_summary(trained, made, decision, promotions, report)))


@app.command()
def search(
    lake: Annotated[Path, typer.Option(help="folder of Delta tables")],
    out: Annotated[Path, typer.Option(help="file to write the best parameters to, for `run`")],
    storage: Annotated[Path, typer.Option(help="SQLite file of the trials; goes on from there")],
    registry: Annotated[
        str, typer.Option(help="MLflow registry: sqlite:///PATH or postgresql://USER@HOST/DATABASE")
    ],
    until_ms: Annotated[
        int, typer.Option("--until-ms", help="read events up to here; the same one to go on")
    ],
    from_ms: Annotated[int, typer.Option("--from-ms", help="as of `run`")] = 0,
    family: Annotated[Family, typer.Option(help="whose parameters")] = Family.XGBOOST,
    trials: Annotated[int, typer.Option(min=1, help="in all, those of before too")] = 50,
    seed: Annotated[int, typer.Option(help="of everything random")] = 1,
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port")] = "127.0.0.1:9092",
    which: Annotated[Which, typer.Option("--rows", help="as of `run`")] = Which.BOTH,
) -> None:
    """Look for better parameters of a ranker, on training rows alone. JSON at the end."""
    # Optuna takes a second to import.
    from pipelines.train.search import search as search_parameters

    reach(registry)
    with command.steps() as step:
        made, _, _, _ = _rows(lake, bootstrap, (from_ms, until_ms), which, step)
        train_rows, _, _ = split(made.rows)
        found = search_parameters(
            train_rows.features,
            train_rows.clicked,
            family,
            storage,
            data_version=data_version(made.rows),
            trials=trials,
            seed=seed,
            step=step,
        )
        write_parameters(out, found)
        run_id = record(
            registry,
            f"search-{family}-{found.data_version}",
            metrics={"log_loss": found.log_loss, "untuned_log_loss": found.untuned_log_loss},
            parameters={
                **found.parameters,
                "data_version": found.data_version,
                "trials": found.trials,
                "seed": seed,
            },
        )
    typer.echo(json.dumps({**asdict(found), "run_id": run_id}))


def _rows(
    lake: Path, bootstrap: str, span_ms: tuple[int, int], which: Which, step: command.Step
) -> tuple[Made, dict[str, ItemFacts], Logged, Slates]:
    from_ms, until_ms = span_ms
    log = read_log(lake, until_ms=until_ms, limits=TimeLimits())
    items = asyncio.run(read_items(bootstrap))
    slates = read_slates(lake, until_ms=until_ms)
    made = make_rows(
        log.columns,
        items,
        slates,
        which,
        from_ms=from_ms,
        until_ms=until_ms,
        windows=Windows(),
        progress=partial(step, "training rows"),
    )
    return replace(made, rows=hold_unobserved(made.rows, log.columns.kind)), items, log, slates


def _report(folder: Path, trained: Trained, made: Made, decision: Decision) -> None:
    facts = {
        "data version": trained.data_version,
        "split at": f"{trained.split_ms} ms",
        "rows": f"{trained.train_rows} to train, {trained.test_rows} to test",
        "rows from": ", ".join(f"{name} {n}" for name, n in made.counts().items()),
    }
    intervals = {"retrieval": trained.retrieval}
    write_report(folder, "Models", facts, trained.metrics, intervals)
    write_comparison(folder, "Rankers compared", facts, trained.comparison, decision)


def _summary(
    trained: Trained,
    made: Made,
    decision: Decision,
    promotions: list[Promotion],
    report: Path,
) -> dict[str, object]:
    return {
        "judged": {"champion": decision.champion, "why": decision.reason},
        "metrics": trained.metrics,
        "models": {f"{p.role}/{p.alias}": p.model_id for p in promotions},
        "data_version": trained.data_version,
        "split_ms": trained.split_ms,
        "train_rows": trained.train_rows,
        "test_rows": trained.test_rows,
        "rows": made.counts(),
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
