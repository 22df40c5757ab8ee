"""A run's evidence as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

MARKDOWN: Final = "report.md"
JSON: Final = "report.json"


def write_report(
    folder: Path, title: str, facts: Mapping[str, str], metrics: Mapping[str, Mapping[str, float]]
) -> None:
    """Write both forms into `folder`.

    Args:
        facts: what the figures rest on: data version, split, rows.
        metrics: model -> metric -> value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items())]
    for model, values in metrics.items():
        lines += ["", f"## {model}", "", "| metric | value |", "| --- | --- |"]
        lines += [f"| {name} | {value:.5g} |" for name, value in values.items()]
    (folder / MARKDOWN).write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = json.dumps({"title": title, "facts": facts, "metrics": metrics}, indent=1)
    (folder / JSON).write_text(body + "\n", encoding="utf-8")
