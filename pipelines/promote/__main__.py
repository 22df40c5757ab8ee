"""`python -m pipelines.promote`: which models serve; promote another, roll back, publish again."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines import command
from pipelines.promote import ledger as lines
from pipelines.promote.publish import publish
from pipelines.promote.registry import point
from rankstream.adapters.kafka import EventProducer

app = typer.Typer(add_completion=False, help=__doc__)
Artifacts = Annotated[Path, typer.Option(help="folder of artefacts and of the ledger")]
Registry = Annotated[
    str, typer.Option(help="MLflow registry: sqlite:///PATH or postgresql://USER@HOST/DATABASE")
]
Bootstrap = Annotated[str, typer.Option(help="Kafka, host:port")]
Role = Annotated[str, typer.Option(help="ranker or retrieval")]
Alias = Annotated[str, typer.Option(help="champion or challenger")]
Why = Annotated[str, typer.Option(help="reason, for the ledger")]


@app.command("list")
def list_command(artifacts: Artifacts) -> None:
    """What each alias holds and has held, a JSON line each, newest first."""
    found = lines.read(artifacts / lines.LEDGER)
    for role, alias in dict.fromkeys((line.role, line.alias) for line in found):
        held = lines.standing(found, role, alias)
        typer.echo(
            json.dumps(
                {
                    "role": role,
                    "alias": alias,
                    "models": [line.model_id for line in reversed(held)],
                    "who": held[-1].who,
                    "why": held[-1].why,
                    "time_ms": held[-1].time_ms,
                }
            )
        )


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="model_id, as `list` shows it")],
    artifacts: Artifacts,
    registry: Registry,
    why: Why,
    role: Role = "ranker",
    alias: Alias = "champion",
    bootstrap: Bootstrap = "127.0.0.1:9092",
) -> None:
    """Point an alias to a model that was registered before, and tell the services."""
    ledger = artifacts / lines.LEDGER
    to = lines.of_model(lines.read(ledger), role, model)
    _move(to, ledger, registry, bootstrap, alias=alias, why=why, move=lines.PROMOTED)


@app.command()
def rollback(
    artifacts: Artifacts,
    registry: Registry,
    why: Why,
    role: Role = "ranker",
    alias: Alias = "champion",
    bootstrap: Bootstrap = "127.0.0.1:9092",
) -> None:
    """Point an alias to the model that it held before this one, and tell the services."""
    ledger = artifacts / lines.LEDGER
    to = lines.before(lines.read(ledger), role, alias)
    _move(to, ledger, registry, bootstrap, alias=alias, why=why, move=lines.ROLLED_BACK)


@app.command("publish")
def publish_command(artifacts: Artifacts, bootstrap: Bootstrap = "127.0.0.1:9092") -> None:
    """Tell the services again what every alias holds: after an outage, or for a new cluster."""
    found = lines.read(artifacts / lines.LEDGER)
    places = dict.fromkeys((line.role, line.alias) for line in found)
    _publish(bootstrap, [lines.standing(found, role, alias)[-1] for role, alias in places])


def _move(
    to: lines.Promotion,
    ledger: Path,
    registry: str,
    bootstrap: str,
    *,
    alias: str,
    why: str,
    move: str,
) -> None:
    now_ms, who = time.time_ns() // 1_000_000, getpass.getuser()
    moved = point(registry, to, ledger, alias=alias, time_ms=now_ms, who=who, why=why, move=move)
    _publish(bootstrap, [moved])


def _publish(bootstrap: str, moved: Sequence[lines.Promotion]) -> None:
    async def append() -> None:
        producer = EventProducer(bootstrap, client_id="promote")
        try:
            await publish(moved, producer)
        finally:
            await producer.flush_and_close()

    asyncio.run(append())
    for line in moved:
        typer.echo(json.dumps(asdict(line)))


if __name__ == "__main__":
    sys.exit(command.run(app))
