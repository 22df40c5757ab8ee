"""`rankstream repartition`: the log with another number of partitions."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.progress import Progress

from rankstream.adapters.repartition import PARTITIONS_MAX
from rankstream.adapters.repartition import repartition as copy_log
from rankstream.cli.console import AsJson, err, out, print_json, refusals

_TOLD_EVERY = 1_000


def repartition(
    context: typer.Context,
    target: Annotated[str, typer.Option("--to", help="Kafka without topics of ours, HOST:PORT.")],
    partitions: Annotated[
        int, typer.Option(min=1, max=PARTITIONS_MAX, help="Of every topic with more than one.")
    ],
    as_json: AsJson = False,
) -> None:
    """Copy the log into a Kafka where its topics have this many partitions.

    Stop ingest and the features workers first; docs/runbook.md says how all goes on from there.
    """
    with refusals(), Progress(console=err, transient=True) as bars:
        shown = bars.add_task("", total=None)

        def progress(topic: str, read: int) -> None:
            if read % _TOLD_EVERY == 1:
                bars.update(shown, description=f"{topic}: {read:,} records")

        source = context.obj.kafka_url
        appended = asyncio.run(copy_log(source, target, partitions, progress=progress))
    if as_json:
        print_json(dict(appended))
        return
    for topic, count in appended.items():
        out.print(f"{topic:>12}  {count:,} records")
