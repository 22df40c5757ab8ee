"""What a fault run found, for a person and for bench/out/chaos.json."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.chaos import faults
from tests.chaos.differences import Area
from tests.chaos.run import Outcome


def show(console: Console, outcome: Outcome, areas: Sequence[Area]) -> None:
    """Tables of faults and of areas, and examples of what differs."""
    table = Table(title="faults")
    for column in ("fault", "at", "detail", "recovered after"):
        table.add_column(column, justify="right" if column in ("at", "recovered after") else "left")
    for recovery in outcome.recoveries:
        seconds = "never" if recovery.seconds is None else f"{recovery.seconds:.1f} s"
        table.add_row(recovery.name, f"{recovery.share:.1%}", recovery.detail, seconds)
    failed = f"{outcome.snapshots_failed} snapshots failed"
    table.add_row(faults.DISK, "", f"{outcome.disk_way}; {failed}", "")
    console.print(table)
    for reason in outcome.own_exits:
        console.print(f"a worker ended by itself: {reason[:400]}", highlight=False)
    compared = Table(title="against the reference")
    for column in ("result", "compared", "differences"):
        compared.add_column(column, justify="left" if column == "result" else "right")
    for area in areas:
        compared.add_row(area.name, f"{area.compared:,}", f"{area.differences:,}")
    console.print(compared)
    for area in areas:
        for example in area.examples:
            console.print(f"{area.name}: {example[:600]}", highlight=False, markup=False)


def figures(
    outcome: Outcome, areas: Sequence[Area], *, events: int, command: str, commit: str
) -> list[dict[str, Any]]:
    """The rows of bench/out/chaos.json."""
    values: list[tuple[str, float, str]] = [
        ("stream.chaos.differences", sum(area.differences for area in areas), "differences"),
        ("stream.chaos.compared", sum(area.compared for area in areas), "results"),
        ("stream.chaos.events", events, "events"),
        ("stream.chaos.total_s", outcome.settled_s, "s"),
        ("stream.chaos.worker_exits", len(outcome.own_exits), "exits"),
        ("stream.chaos.snapshots_failed", outcome.snapshots_failed, "snapshots"),
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    for recovery in outcome.recoveries:
        if recovery.seconds is not None:
            seconds[recovery.name].append(recovery.seconds)
    names = {
        faults.KILL: "kill",
        faults.JOIN: "join",
        faults.LEAVE: "leave",
        faults.BROKER: "broker",
        faults.REDIS: "redis",
    }
    every = [second for found in seconds.values() for second in found]
    for name, found in (("", every), *((f".{names[kind]}", seconds[kind]) for kind in seconds)):
        if found:
            values.append((f"stream.chaos.recovery_s{name}_p50", float(np.median(found)), "s"))
            values.append((f"stream.chaos.recovery_s{name}_max", max(found), "s"))
    return [
        {
            "id": key,
            "value": value,
            "unit": unit,
            "spread": None,
            "against": None,
            "ratio": None,
            "command": command,
            "commit": commit,
        }
        for key, value, unit in values
    ]
