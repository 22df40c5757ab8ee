"""What all commands share: where the services are, how to print, how refusals end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rankstream.client import Client
from rankstream.errors import RankstreamError

# No markup: what events and errors say is data.
out = Console(markup=False, highlight=False)
err = Console(stderr=True, markup=False, highlight=False)


@dataclass(frozen=True)
class Addresses:
    """Where the services are."""

    ingest_url: str
    ranker_target: str
    ranker_admin_target: str
    experiments_url: str
    kafka_url: str
    api_key: str


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def client_of(context: typer.Context) -> Client:
    """A client of the services that the options name."""
    to: Addresses = context.obj
    return Client(
        to.ingest_url,
        to.ranker_target,
        to.experiments_url,
        ranker_admin_target=to.ranker_admin_target,
        api_key=to.api_key,
    )


@contextmanager
def refusals() -> Iterator[None]:
    """A named error becomes its message on stderr and exit code 1."""
    try:
        yield
    except RankstreamError as error:
        err.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(1) from None


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    out.print(json.dumps(value, indent=2), soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """An empty table under a title."""
    return Table(*columns, title=title, title_justify="left", title_style="bold")


def time_of(epoch_ms: int) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
