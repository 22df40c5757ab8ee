"""The item table of a retrieval artefact: which item each row of its index is."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "items.npz"


@dataclass(frozen=True)
class ItemTable:
    """m items. Row numbers are those of the index.

    item_id: m texts. id64: their hashes, shape (m,). popularity: shape (m,), any scale.
    """

    item_id: tuple[str, ...]
    id64: npt.NDArray[np.uint64]
    popularity: npt.NDArray[np.float32]


def read_item_table(folder: Path) -> ItemTable:
    """The table of an artefact folder; its vectors are left on disk, the index has them.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of unequal lengths.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as columns:
            names = columns["item_id"]
            table = ItemTable(
                tuple(str(name) for name in names.tolist()),
                columns["id64"].astype(np.uint64),
                columns["popularity"].astype(np.float32),
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not an item table: {error}") from None
    m = len(table.item_id)
    if not m or table.id64.shape != (m,) or table.popularity.shape != (m,):
        raise _invalid(path, f"has {m} ids, id64 {table.id64.shape}, {table.popularity.shape}")
    return table


def rows_of_table(table: ItemTable, rows: npt.NDArray[np.int64]) -> ItemTable:
    """Some rows of a table, in their order."""
    item_id = tuple(table.item_id[row] for row in rows.tolist())
    return ItemTable(item_id, table.id64[rows], table.popularity[rows])


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
