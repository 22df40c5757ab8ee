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
from pipelines.datasets.catalog import Dataset, read_history
from pipelines.datasets.history import ndjson
from pipelines.datasets.produce import Produced, produce
from rankstream.adapters.kafka import EventProducer

app = typer.Typer(add_completion=False, help=__doc__)
Name = Annotated[Dataset, typer.Argument(help="which log")]
Source = Annotated[Path, typer.Option("--path", help="folder with the log's files")]
Until = Annotated[
    int | None,
    typer.Option("--until-ms", help="move the last event here, epoch ms, and all with it"),
]
Before = Annotated[
    bool, typer.Option("--with-history", help="KuaiRand: exposures before the log, times invented")
]


@app.command("write")
def write_command(
    name: Name,
    path: Source,
    out: Annotated[Path, typer.Option("--out", help="NDJSON file to write")],
    until_ms: Until = None,
    with_history: Before = False,
) -> None:
    """Write a log as NDJSON messages, items first."""
    found = read_history(name, path, until_ms=until_ms, with_history=with_history)
    with out.open("w", encoding="utf-8") as file:
        for line in ndjson(found):
            file.write(f"{line}\n")
    typer.echo(json.dumps({"events": len(found.columns), "items": len(found.items)}))


@app.command("produce")
def produce_command(
    path: Source,
    name: Name = Dataset.MOVIELENS,
    until_ms: Until = None,
    with_history: Before = False,
    bootstrap: Annotated[str, typer.Option(help="Kafka, host:port")] = "127.0.0.1:9092",
) -> None:
    """Append a log to topics `items` and `events`; a JSON summary on the last line.

    The stream takes no event that is over 400 days old when it is appended: shift an older log.
    """
    found = read_history(name, path, until_ms=until_ms, with_history=with_history)

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
