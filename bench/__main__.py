"""`python -m bench [NAME]`: measure, then print what bench/out holds.

A row is {id, value, unit, spread, against, ratio, command, commit}: the figure, its spread
(standard error), the alternative measured in the same run and the ratio to it, if there is one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parents[1]
OUT: Final = ROOT / "bench" / "out"
# name -> what measures it
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "chaos": (sys.executable, "-m", "tests.chaos"),
    "demo": (sys.executable, "-m", "deploy.local", "demo", "--exit"),
    "pit": (sys.executable, "-m", "bench.pit_join"),
    "quality": (sys.executable, "-m", "bench.quality"),
    "serving": (sys.executable, "-m", "bench.serving"),
    "stream": (sys.executable, "-m", "bench.stream"),
}


def table(name: str, rows: list[dict[str, Any]]) -> Table:
    """The figures of one file."""
    shown = Table(title=name)
    for column in ("id", "value", "unit", "spread", "against", "ratio", "commit"):
        numeric = column in ("value", "spread", "ratio")
        shown.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        cells = (row[str(column.header)] for column in shown.columns)
        shown.add_row(*(f"{c:.4g}" if isinstance(c, float) else str(c or "") for c in cells))
    return shown


def main(argv: list[str], console: Console) -> int:
    """Run one measurement or all; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(COMMANDS))
    chosen = parser.parse_args(argv).name
    names = [chosen] if chosen else sorted(COMMANDS)
    codes = [subprocess.run(COMMANDS[name], cwd=ROOT, check=False).returncode for name in names]
    for name in names:
        path = OUT / f"{name}.json"
        if path.exists():
            console.print(table(name, json.loads(path.read_text(encoding="utf-8"))))
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
