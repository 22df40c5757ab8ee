"""Neighbour lists on disk: what was written is read, anything else is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankstream.adapters import neighbour_lists
from rankstream.adapters.neighbour_lists import (
    NAME,
    NeighbourLists,
    read_neighbour_lists,
    write_neighbour_lists,
)
from rankstream.contracts.neighbours import Neighbours
from rankstream.errors import InvalidArtifact

TABLE = Neighbours(
    "company",
    np.array([[1, -1], [0, 2], [-1, -1]], np.int32),
    np.array([[0.5, 0.0], [2.0, 1.0], [0.0, 0.0]], np.float32),
    last=7,
    fading=0.9,
    share=0.3,
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_neighbour_lists(tmp_path / NAME, NeighbourLists((TABLE,), 0.5))

    read = read_neighbour_lists(tmp_path, size=3)

    (table,) = read.tables
    assert (read.index_share, table.name, table.last) == (0.5, "company", 7)
    assert (table.fading, table.share) == (0.9, 0.3)
    assert table.rows.tolist() == TABLE.rows.tolist()
    assert table.weight.tolist() == TABLE.weight.tolist()


@pytest.mark.parametrize(
    ("table", "share", "problem"),
    [
        (replace(TABLE, rows=TABLE.rows[:2]), 0.5, "its item table 3 rows"),
        (replace(TABLE, weight=TABLE.weight[:, :1]), 0.5, "its item table 3 rows"),
        (replace(TABLE, rows=TABLE.rows + 1), 0.5, r"with rows outside -1\.\.2"),
        (replace(TABLE, weight=-TABLE.weight), 0.5, "out of range"),
        (replace(TABLE, weight=TABLE.weight * np.float32(np.nan)), 0.5, "out of range"),
        (replace(TABLE, fading=0.0), 0.5, r"fading 0\.0"),
        (replace(TABLE, last=0), 0.5, "last 0"),
        (replace(TABLE, share=-1.0), 0.5, r"share -1\.0"),
        (TABLE, 0.0, r"index_share 0\.0"),
    ],
)
def test_lists_that_are_out_of_range_are_refused(
    tmp_path: Path, table: Neighbours, share: float, problem: str
) -> None:
    write_neighbour_lists(tmp_path / NAME, NeighbourLists((table,), share))

    with pytest.raises(InvalidArtifact, match=problem):
        read_neighbour_lists(tmp_path, size=3)


@pytest.mark.parametrize("content", [None, b"no npz", b"PK\x03\x04"])
def test_a_file_that_holds_no_lists_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)

    with pytest.raises(InvalidArtifact, match="is not a file of neighbour lists"):
        read_neighbour_lists(tmp_path, size=3)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_lists_of_a_shard_are_those_of_all_without_the_neighbours_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(neighbour_lists, "_BLOCK", block)
    rng = np.random.default_rng(1)
    rows = np.stack([rng.permutation(7)[:4] for _ in range(7)]).astype(np.int32)
    rows[rng.random(rows.shape) < 0.3] = -1
    weight = np.where(rows >= 0, rng.random(rows.shape), 0).astype(np.float32)
    tables = tuple(Neighbours(name, rows, weight, 3, 0.5, 1.0) for name in ("one", "two"))
    write_neighbour_lists(tmp_path / NAME, NeighbourLists(tables, 0.5))
    part, ones = np.array([1, 4, 5]), np.ones(1, np.float32)

    read = read_neighbour_lists(tmp_path, size=7, part=part)

    for table in read.tables:
        for item in range(7):
            named, counted = table.named(np.array([item]), ones)
            kept = np.isin(rows[item], part)
            assert part[named].tolist() == rows[item][kept].tolist()
            assert counted.tolist() == weight[item][kept].tolist()
    assert ([table.name for table in read.tables], read.index_share) == (["one", "two"], 0.5)
