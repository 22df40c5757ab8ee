"""The file of an index in an artefact folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "index.faiss"


def read_index(folder: Path, *, size: int) -> Any:
    """The FAISS index of an artefact folder, its vectors left in the file and mapped from there.

    The file must not be changed while the index is in use; removing it does no harm.

    Raises: InvalidArtifact: not a FAISS index, not of inner product, or not of `size` rows.
    """
    path = folder / NAME
    try:
        index = _mapped(path)
    except RuntimeError as error:
        raise invalid_index(path, f"is not a FAISS index: {str(error)[:200]}") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise invalid_index(path, f"has metric {index.metric_type}, not the inner product")
    if index.ntotal != size:
        raise invalid_index(path, f"has {index.ntotal} rows, its item table {size}")
    return index


def part_of_cells(index: Any, rows: npt.NDArray[np.int64]) -> Any:
    """An index of some rows of one of cells, mapped from a file that is gone when it is closed.

    The file lies where the system keeps temporary ones (TMPDIR), as long as the index is in use.

    Args:
        index: a mapped faiss.IndexIVFScalarQuantizer whose rows are in the order of its cells; of
            no use afterwards.
        rows: ascending; they are then rows 0, 1, ...
    """
    lists, width = index.invlists, int(index.code_size)
    kept = faiss.ArrayInvertedLists(int(index.nlist), width)
    start = 0
    for cell in range(int(index.nlist)):
        size = int(lists.list_size(cell))
        if not size:
            continue
        ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
        first, last = np.searchsorted(rows, (ids[0], ids[-1] + 1))
        codes = faiss.rev_swig_ptr(lists.get_codes(cell), size * width).reshape(size, width)
        codes = np.ascontiguousarray(codes[rows[first:last] - ids[0]])
        ids = np.arange(start, start + len(codes), dtype=np.int64)
        start += len(codes)
        if len(codes):
            kept.add_entries(cell, len(codes), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
    index.replace_invlists(kept, False)
    index.ntotal = len(rows)
    with tempfile.TemporaryDirectory(prefix="rankstream-shard-") as folder:
        path = Path(folder) / NAME
        faiss.write_index(index, str(path))
        return _mapped(path)


def _mapped(path: Path) -> Any:
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)


def invalid_index(path: Path, problem: str) -> InvalidArtifact:
    """The refusal of an index file."""
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
