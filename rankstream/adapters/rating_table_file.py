"""The rating table of a retrieval artefact: what the columns of `features.rating_table` need."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from rankstream.errors import InvalidArtifact
from rankstream.features.rating_table import RatingTable

NAME: Final = "ratings.npz"


def write_rating_table(path: Path, table: RatingTable) -> None:
    """Write a table where `read_rating_table` finds it."""
    np.savez(
        path,
        item=table.item,
        mean=np.float64(table.mean),
        deviation=table.deviation,
        rows=table.rows,
        weight=table.weight,
    )


def read_rating_table(folder: Path, *, table_id: str) -> RatingTable:
    """The table of an artefact folder, which is named `table_id`; it may be of no items.

    Raises: InvalidArtifact: absent, not an npz of these columns, or not a table.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            table = RatingTable(
                table_id,
                columns["item"].astype(np.uint32),
                float(columns["mean"]),
                columns["deviation"].astype(np.float32),
                columns["rows"].astype(np.int32),
                columns["weight"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of a rating table: {error}") from None
    if problem := _problem(table):
        raise _invalid(path, problem)
    return table


def _problem(table: RatingTable) -> str:
    """What is wrong with it; "" if nothing is."""
    m, rows, weight = len(table), table.rows, table.weight
    fits = table.item.shape == table.deviation.shape == (m,)
    if not fits or rows.ndim != 2 or len(rows) != m or weight.shape != rows.shape:
        return f"has {m} items, deviations {table.deviation.shape}, rows {rows.shape}"
    if (table.item[1:] <= table.item[:-1]).any():
        return "has items that do not ascend"
    if rows.size and not -1 <= rows.min() <= rows.max() < m:
        return f"has rows outside -1..{m - 1}"
    finite = np.isfinite(table.mean) and np.isfinite(table.deviation).all()
    if not (finite and np.isfinite(weight).all() and (weight >= 0).all()):
        return "has numbers that are not finite, or weights below 0"
    return ""


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
