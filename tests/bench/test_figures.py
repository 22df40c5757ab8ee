"""Figures: means, spreads, ratios, and what the file keeps."""

from __future__ import annotations

import json
from pathlib import Path

from bench.figures import Figure, figure, ratio, write

FIELDS = {"id", "value", "unit", "spread", "against", "ratio", "command", "commit"}


def test_spread_is_the_standard_error_and_absent_for_one_run() -> None:
    assert figure("a", [1.0, 3.0], "s") == Figure("a", 2.0, "s", 1.0)
    assert figure("a", [2.0], "s").spread is None


def test_ratio_pairs_the_runs() -> None:
    paired = ratio([2.0, 6.0], [1.0, 2.0])

    assert paired == (2.5, "ratio", 0.5)


def test_rows_of_other_measurements_stay_and_the_same_id_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "stream.json"
    write([figure("b", [1.0], "s"), figure("a", [1.0], "s")], command="first", path=path)

    write([figure("b", [2.0], "s")], command="second", path=path)

    rows = json.loads(path.read_text())
    assert [(row["id"], row["value"], row["command"]) for row in rows] == [
        ("a", 1.0, "first"),
        ("b", 2.0, "second"),
    ]
    assert all(set(row) == FIELDS for row in rows)
