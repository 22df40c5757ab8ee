"""The neighbour lists of a retrieval artefact: sources beside its index."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rankstream.contracts.neighbours import Neighbours
from rankstream.errors import InvalidArtifact

NAME: Final = "neighbours.npz"


@dataclass(frozen=True, eq=False)
class NeighbourLists:
    """Lists over one item table, and the weight of the index when all are merged."""

    tables: tuple[Neighbours, ...]
    index_share: float


# An artefact that has none is answered by its index alone.
NO_LISTS: Final = NeighbourLists((), 1.0)


def write_neighbour_lists(path: Path, lists: NeighbourLists) -> None:
    """Write the lists where `read_neighbour_lists` finds them."""
    tables = lists.tables
    columns: dict[str, Any] = {
        "index_share": np.float64(lists.index_share),
        "name": np.array([table.name for table in tables], np.str_),
        "last": np.array([table.last for table in tables], np.int64),
        "fading": np.array([table.fading for table in tables], np.float64),
        "share": np.array([table.share for table in tables], np.float64),
    }
    for place, table in enumerate(tables):
        columns |= {f"rows_{place}": table.rows, f"weight_{place}": table.weight}
    np.savez(path, **columns)


def read_neighbour_lists(folder: Path, *, size: int) -> NeighbourLists:
    """The lists of an artefact folder whose item table has `size` rows.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of another table.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            tables = tuple(
                Neighbours(
                    str(name),
                    columns[f"rows_{place}"].astype(np.int32),
                    columns[f"weight_{place}"].astype(np.float32),
                    last=int(columns["last"][place]),
                    fading=float(columns["fading"][place]),
                    share=float(columns["share"][place]),
                )
                for place, name in enumerate(columns["name"].tolist())
            )
            lists = NeighbourLists(tables, float(columns["index_share"]))
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of neighbour lists: {error}") from None
    _check(path, lists.tables, size)
    if not lists.index_share > 0:
        raise _invalid(path, f"has index_share {lists.index_share} (above 0)")
    return lists


def _check(path: Path, tables: Sequence[Neighbours], size: int) -> None:
    for table in tables:
        if (
            table.rows.ndim != 2
            or len(table.rows) != size
            or table.weight.shape != table.rows.shape
        ):
            raise _invalid(
                path,
                f"has {table.name} of shapes {table.rows.shape} and {table.weight.shape},"
                f" its item table {size} rows",
            )
        if table.rows.size and not -1 <= table.rows.min() <= table.rows.max() < size:
            raise _invalid(path, f"has {table.name} with rows outside -1..{size - 1}")
        sound = table.last >= 1 and 0 < table.fading <= 1 and table.share > 0
        if not (sound and np.isfinite(table.weight).all() and (table.weight >= 0).all()):
            raise _invalid(
                path,
                f"has {table.name} with last {table.last}, fading {table.fading}, share"
                f" {table.share} or weights that are out of range",
            )


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
