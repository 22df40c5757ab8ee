"""A rating table goes through its file unchanged; what is none is refused by name."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankstream.adapters.rating_table_file import NAME, read_rating_table, write_rating_table
from rankstream.errors import InvalidArtifact
from rankstream.features.rating_table import NO_RATINGS, RatingTable
from tests.rankstream.features.test_rating_table import a_table


@pytest.mark.parametrize("table", [a_table(), NO_RATINGS], ids=["some", "none"])
def test_a_table_is_read_as_it_was_written(table: RatingTable, tmp_path: Path) -> None:
    write_rating_table(tmp_path / NAME, table)

    read = read_rating_table(tmp_path, table_id=table.table_id)

    for column in fields(RatingTable):
        assert np.array_equal(getattr(read, column.name), getattr(table, column.name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"item": a_table().item[::-1]}, "items that do not ascend"),
        ({"rows": a_table().rows + 20}, r"rows outside -1\.\.11"),
        ({"rows": a_table().rows[:3]}, r"\(3, 4\), \(12, 4\)\), of 12 items"),
        ({"factor": a_table().factor[:, :1]}, r"\(12, 1\)"),
        ({"weight": -a_table().weight}, "weights below 0"),
        ({"mean": float("nan")}, "not finite"),
    ],
)
def test_a_table_that_is_none_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    write_rating_table(tmp_path / NAME, replace(a_table(), **change))

    with pytest.raises(InvalidArtifact, match=reason):
        read_rating_table(tmp_path, table_id="index-1")


@pytest.mark.parametrize("content", [None, b"not a file of arrays"])
def test_a_file_that_is_none_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)

    with pytest.raises(InvalidArtifact, match="is not a file of a rating table"):
        read_rating_table(tmp_path, table_id="index-1")
