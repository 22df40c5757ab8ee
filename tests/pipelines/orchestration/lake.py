"""A lake of some days, and the tables that a daily run makes of it."""

from __future__ import annotations

from pathlib import Path

from pipelines.features import batch
from tests.pipelines.features.test_batch_job import the_lake, three_days

ROOT = Path(__file__).resolve().parents[3]
# The last day that the log has passed.
DAY = "2023-11-18"
TABLES = {*batch.ENTITIES, "labels", "rows"}


def a_tiny_lake(root: Path) -> Path:
    """Three days of events."""
    return the_lake(root, three_days())


def written(out: Path) -> set[str]:
    """Tables that hold a day, those of DAY and the labels before it."""
    assert (out / "user" / f"date={DAY}" / "_batch.json").exists(), sorted(out.glob("*/*"))
    assert (out / "rows" / "date=2023-11-16" / "_batch.json").exists()
    return {path.name for path in out.iterdir() if path.is_dir()}
