"""What the batch commands share: progress on stderr, the result on stdout, errors by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from rankstream.errors import RankstreamError

# (what, done, total)
Step: TypeAlias = Callable[[str, int, int], None]


@contextmanager
def steps() -> Iterator[Step]:
    """Hears of progress: bars on a terminal; elsewhere a line of JSON for each change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _tell
        return
    tasks: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bars:

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what)
            bars.update(tasks[what], completed=done, total=total)

        yield step


def _tell(what: str, done: int, total: int) -> None:
    sys.stderr.write(json.dumps({"step": what, "done": done, "total": total}) + "\n")
    sys.stderr.flush()


def run(app: typer.Typer) -> int:
    """Run the command; a named error is one line on stderr and exit code 1."""
    try:
        app()
    except RankstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
