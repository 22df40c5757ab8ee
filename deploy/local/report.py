"""Tell a person what is at work: a bar on a terminal, a line per finished step elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)


class Report(Protocol):
    """What the runtime tells while it works."""

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` parts of `what` are done."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """Tells nothing."""

    def step(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class Terminal:
    """Bars on a terminal; where there is none, one line per finished step. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_s: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def step(self, what: str, done: int, total: int) -> None:
        if what not in self._began_s:
            self._began_s[what] = time.monotonic()
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if done == total and what not in self._told and not self._console.is_terminal:
            self._told.add(what)
            elapsed_s = time.monotonic() - self._began_s[what]
            self._console.print(f"{what}: {done}/{total} in {elapsed_s:.1f} s", highlight=False)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)
