"""`python -m pipelines.datasets`: a public log to a file of messages, or to Kafka."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipelines import command
from pipelines.datasets.history import ndjson
from pipelines.datasets.movielens import history, read_ratings
from pipelines.datasets.produce import Produced, produce
from rankstream.adapters.kafka import EventProducer

app = typer.Typer(add_completion=False, help=__doc__)
Source = Annotated[Path, typer.Option("--path", help="folder with the ml-100k files")]
Until = Annotated[int, typer.Option("--until-ms", help="when the last event happened, epoch ms")]


@app.command()
def movielens(
    path: Source,
    until_ms: Until,
    out: Annotated[Path, typer.Option(help="NDJSON file to write")],
) -> None:
    """Write MovieLens 100K as NDJSON messages, items first."""
    found = history(read_ratings(path), until_ms=until_ms)
    with out.open("w", encoding="utf-8") as file:
        for line in ndjson(found):
            file.write(f"{line}\n")
    typer.echo(json.dumps({"events": len(found.columns), "items": len(found.items)}))


@app.command("produce")
def produce_command(
    path: Source,
    until_ms: Until,
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port")] = "127.0.0.1:9092",
) -> None:
    """Append MovieLens 100K to topics `items` and `events`; a JSON summary on the last line."""
    found = history(read_ratings(path), until_ms=until_ms)

    async def append() -> Produced:
        producer = EventProducer(
            bootstrap, client_id="datasets", linger_ms=20, delivery_timeout_s=60.0
        )
        try:
            with command.steps() as step:
                return await produce(found, producer, progress=partial(step, "history → Kafka"))
        finally:
            await producer.flush_and_close()

    typer.echo(json.dumps(asdict(asyncio.run(append()))))


if __name__ == "__main__":
    sys.exit(command.run(app))
