"""`python -m pipelines.train`: training that does not go through `python -m pipelines run`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pipelines import command
from pipelines.train.shards import fit_shards

app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def _train() -> None:
    """Training of single models."""


@app.command("shards")
def shards_command(
    rows: Annotated[Path, typer.Option(help="table `rows` of `pipelines.features batch`")],
    out: Annotated[Path, typer.Option(help="folder to make, for the model")],
    seed: Annotated[int, typer.Option(help="of everything random")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="of XGBoost")] = 1,
) -> None:
    """XGBoost on shards that need not fit in memory; a JSON summary at the end."""
    with command.steps() as step:
        step("trees", 0, 1)
        fitted = fit_shards(rows, out, seed=seed, threads=threads)
        step("trees", 1, 1)
    typer.echo(json.dumps(asdict(fitted)))


if __name__ == "__main__":
    sys.exit(command.run(app))
