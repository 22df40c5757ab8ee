"""The neighbour lists of a retrieval artefact: sources beside its index."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.neighbours import Neighbours, NeighboursPart, joined_parts, part_of
from rankstream.errors import InvalidArtifact

NAME: Final = "neighbours.npz"
_BLOCK: Final = 65_536  # lists that are cut at once


@dataclass(frozen=True, eq=False)
class NeighbourLists:
    """Lists over one item table, and the weight of the index when all are merged."""

    tables: tuple[Neighbours | NeighboursPart, ...]
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


def read_neighbour_lists(
    folder: Path, *, size: int, part: npt.NDArray[np.int64] | None = None
) -> NeighbourLists:
    """The lists of an artefact folder whose item table has `size` rows.

    Args:
        part: rows that a shard holds, ascending; None: all. The lists are then cut down to them,
            some at a time: those of all rows are never in memory together.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of another table.
    """
    path = folder / NAME
    tables: list[Neighbours | NeighboursPart] = []
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as columns:
            share = float(columns["index_share"])
            for place in range(len(columns["name"])):
                if part is None:
                    (table,) = _blocks(path, archive, columns, place, size, size)
                    tables.append(table)
                else:
                    blocks = _blocks(path, archive, columns, place, size, _BLOCK)
                    tables.append(joined_parts([part_of(one, part, size) for one in blocks]))
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of neighbour lists: {error}") from None
    if not share > 0:
        raise _invalid(path, f"has index_share {share} (above 0)")
    return NeighbourLists(tuple(tables), share)


def _blocks(
    path: Path, archive: zipfile.ZipFile, columns: Any, place: int, size: int, block: int
) -> Iterator[Neighbours]:
    """The lists of one table, so many at a time, checked."""
    name, last = str(columns["name"][place]), int(columns["last"][place])
    fading, share = float(columns["fading"][place]), float(columns["share"][place])
    with (
        archive.open(f"rows_{place}.npy") as of_rows,
        archive.open(f"weight_{place}.npy") as of_weight,
    ):
        shape, row_dtype = _header(of_rows)
        weight_shape, weight_dtype = _header(of_weight)
        if len(shape) != 2 or shape[0] != size or weight_shape != shape:
            raise _invalid(
                path, f"has {name} of shapes {shape} and {weight_shape}, its item table {size} rows"
            )
        for start in range(0, size, block):
            count = min(block, size - start)
            rows = _read(of_rows, row_dtype, (count, shape[1])).astype(np.int32, copy=False)
            weight = _read(of_weight, weight_dtype, (count, shape[1]))
            weight = weight.astype(np.float32, copy=False)
            table = Neighbours(name, rows, weight, last=last, fading=fading, share=share)
            _check(path, table, size)
            yield table


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a column that is about to be read. Raises: ValueError: not by rows."""
    np.lib.format.read_magic(file)
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if by_columns:
        raise ValueError("a column of it is not stored by rows")
    return shape, dtype


def _read(file: Any, dtype: np.dtype[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """So many rows of a column. Raises: ValueError: there are fewer."""
    return np.frombuffer(file.read(shape[0] * shape[1] * dtype.itemsize), dtype).reshape(shape)


def _check(path: Path, table: Neighbours, size: int) -> None:
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
