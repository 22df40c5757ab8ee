"""The file of an index in an artefact folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss

from rankstream.errors import InvalidArtifact

NAME: Final = "index.faiss"


def read_index(folder: Path, *, size: int) -> Any:
    """The FAISS index of an artefact folder, its vectors left in the file and mapped from there.

    The file must not be changed while the index is in use; removing it does no harm.

    Raises: InvalidArtifact: not a FAISS index, not of inner product, or not of `size` rows.
    """
    path = folder / NAME
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise invalid_index(path, f"is not a FAISS index: {str(error)[:200]}") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise invalid_index(path, f"has metric {index.metric_type}, not the inner product")
    if index.ntotal != size:
        raise invalid_index(path, f"has {index.ntotal} rows, its item table {size}")
    return index


def invalid_index(path: Path, problem: str) -> InvalidArtifact:
    """The refusal of an index file."""
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
