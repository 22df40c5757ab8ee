"""`python -m pipelines.validate`: what data a model was made from, and if it still is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines import command
from pipelines.validate.dvc import write_dvc
from pipelines.validate.manifest import (
    DATASET,
    dataset_of_folder,
    read_dataset,
    write_dataset,
)
from pipelines.validate.manifest import verify as verify_folder

app = typer.Typer(add_completion=False, help=__doc__)
Folder = Annotated[Path, typer.Argument(help="folder of the data set")]
Where = Annotated[Path | None, typer.Option("--manifest", help="default: <folder>/" + DATASET)]


@app.command("manifest")
def manifest_command(folder: Folder, manifest: Where = None) -> None:
    """Write the manifest of a folder; a JSON summary at the end."""
    folder = folder.absolute()
    path, dataset = manifest or folder / DATASET, dataset_of_folder(folder)
    write_dataset(path, dataset)
    summary = {"manifest": str(path), "files": len(dataset.parts)}
    typer.echo(json.dumps(summary | dataset.model_dump(include={"version", "rows"})))


@app.command()
def verify(folder: Folder, manifest: Where = None) -> None:
    """Compare a folder with its manifest; names the first file that differs."""
    folder = folder.absolute()
    dataset = read_dataset(manifest or folder / DATASET)
    verify_folder(folder, dataset)
    typer.echo(json.dumps({"folder": str(folder), "version": dataset.version, "unaltered": True}))


@app.command()
def dvc(folder: Folder) -> None:
    """Write <folder>.dvc, for those who use DVC."""
    typer.echo(json.dumps({"dvc": str(write_dvc(folder.absolute()))}))


if __name__ == "__main__":
    sys.exit(command.run(app))
