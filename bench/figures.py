"""The rows of the files in bench/out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
OUT: Final = ROOT / "bench" / "out"


@dataclass(frozen=True)
class Figure:
    """One measured value. `ratio` is value / the value of `against`."""

    id: str
    value: float
    unit: str
    spread: float | None = None  # standard error over the repetitions
    against: str | None = None
    ratio: float | None = None


def figure(name: str, values: Sequence[float], unit: str) -> Figure:
    """The mean of the repetitions and its standard error, if there are several."""
    spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Figure(name, float(np.mean(values)), unit, spread)


def ratio(of: Sequence[float], to: Sequence[float]) -> tuple[float, str, float | None]:
    """Mean of the ratios of runs that belong together, its unit and its standard error."""
    ratios = np.asarray(of, float) / np.asarray(to, float)
    found = figure("", ratios.tolist(), "ratio")
    return found.value, found.unit, found.spread


def machine() -> str:
    """What it was measured on."""
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        model = next(
            (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), model
        )
    memory_gb = psutil.virtual_memory().total / 1e9
    return (
        f"{psutil.cpu_count()} cores of {model}, {memory_gb:.0f} GB, {platform.system()}"
        f" {platform.release()}, Python {platform.python_version()},"
        f" load average before: {os.getloadavg()[0]:.1f}"
    )


def commit() -> str:
    """The commit that was measured, marked if the tree is not exactly that; "" outside git."""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip()


def write(figures: Iterable[Figure], *, command: str, path: Path) -> None:
    """Put the figures into the file; rows of other ids stay."""
    stamp = commit()
    kept: dict[str, dict[str, Any]] = {}
    if path.exists():
        kept = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    for one in figures:
        kept[one.id] = {**vars(one), "command": command, "commit": stamp}
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = [kept[name] for name in sorted(kept)]
    path.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")
