"""docs/access.md says what the code asks for."""

from __future__ import annotations

from pathlib import Path

from services.ranker.app import SCOPES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "access.md").read_text()


def test_every_call_of_the_ranker_stands_beside_its_scope() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ranker:")]

    for method, scope in SCOPES.items():
        (row,) = [row for row in rows if f"`{method}`" in row]
        assert row.endswith(f"| `{scope}` |")
