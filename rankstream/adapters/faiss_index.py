"""The Index port on FAISS."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "index.faiss"

# The types that the wheel ships describe the C++ classes, not the Python ones that wrap them.
_faiss: Any = faiss


class FaissIndex:
    """An inner-product index whose ids are the rows of its item table."""

    def __init__(self, index: Any, *, nprobe: int = 0) -> None:
        """`nprobe` is for inverted files: cells searched; 0 keeps what the index was saved with."""
        self._index = index
        self._nprobe = nprobe or int(getattr(index, "nprobe", 0))

    @classmethod
    def build(cls, vectors: npt.NDArray[np.float32]) -> FaissIndex:
        """An exact index of vectors, shape (m, dim)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    @classmethod
    def load(cls, folder: Path, *, size: int) -> FaissIndex:
        """The index of an artefact folder.

        Raises: InvalidArtifact: not a FAISS index, not of inner product, or not of `size` rows.
        """
        path = folder / NAME
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise _invalid(path, f"is not a FAISS index: {str(error)[:200]}") from None
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise _invalid(path, f"has metric {index.metric_type}, not the inner product")
        if index.ntotal != size:
            raise _invalid(path, f"has {index.ntotal} rows, its item table {size}")
        return cls(index)

    def save(self, path: Path) -> None:
        """Write the index where `load` finds it."""
        faiss.write_index(self._index, str(path))

    @property
    def size(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    def search(
        self, query: npt.NDArray[np.float32], k: int, excluded: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        k = min(k, self.size)
        if k == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        # The index holds no reference to the selector, nor the selector to the bitmap: these
        # names keep both alive until the search is over.
        bitmap = self._allowed(excluded)
        selector = _faiss.IDSelectorBitmap(bitmap)
        parameters = self._parameters(selector)
        similarity, rows = self._index.search(
            np.ascontiguousarray(query[None], np.float32), k, params=parameters
        )
        found = rows[0] >= 0
        return rows[0][found], similarity[0][found]

    def _allowed(self, excluded: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        allowed = np.ones(self.size, bool)
        allowed[excluded] = False
        return np.packbits(allowed, bitorder="little")

    def _parameters(self, selector: Any) -> Any:
        if self._nprobe:
            return _faiss.SearchParametersIVF(sel=selector, nprobe=self._nprobe)
        return _faiss.SearchParameters(sel=selector)


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
