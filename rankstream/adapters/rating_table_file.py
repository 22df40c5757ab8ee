"""The rating table of a retrieval artefact: what the columns of `features.rating_table` need."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from rankstream.errors import InvalidArtifact
from rankstream.features.rating_table import FACTORS, RatingTable

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
        factor=table.factor,
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
                columns["factor"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of a rating table: {error}") from None
    if problem := _problem(table):
        raise _invalid(path, problem)
    return table


def _problem(table: RatingTable) -> str:
    """What is wrong with it; "" if nothing is."""
    m, rows, weight = len(table), table.rows, table.weight
    shapes = (table.item.shape, table.deviation.shape, table.factor.shape, rows.shape[:1])
    fits = shapes == ((m,), (m,), (m, FACTORS), (m,)) and rows.ndim == 2
    if not fits or weight.shape != rows.shape:
        return f"has columns of shapes {(*shapes, rows.shape, weight.shape)}, of {m} items"
    if (table.item[1:] <= table.item[:-1]).any():
        return "has items that do not ascend"
    if rows.size and not -1 <= rows.min() <= rows.max() < m:
        return f"has rows outside -1..{m - 1}"
    numbers = (np.float64(table.mean), table.deviation, weight, table.factor)
    if not all(np.isfinite(one).all() for one in numbers) or (weight < 0).any():
        return "has numbers that are not finite, or weights below 0"
    return ""


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
