"""The user half of a two-tower model: an ONNX graph from last actions to a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rankstream.adapters.onnx_session import REFUSALS, Shape, invalid, session

Floats = npt.NDArray[np.float32]

TOWER_FILE: Final = "query_tower.onnx"
_IO: Final[Shape] = (
    {"recent": ("tensor(int64)", 2), "weight": ("tensor(float)", 2)},
    ("query",),
)


class QueryTower:
    """The user half of a two-tower model: last actions in, query vector out."""

    def __init__(self, graph: ort.InferenceSession, dimensions: int) -> None:
        self._graph = graph
        self.dimensions = dimensions

    @classmethod
    def load(cls, folder: Path, *, dimensions: int) -> QueryTower:
        """The tower of an artefact folder.

        Raises: InvalidArtifact: no such graph, or its queries have other dimensions.
        """
        path = folder / TOWER_FILE
        tower = cls(session(path, None, _IO), dimensions)
        try:
            query = tower.embed(np.zeros(1, np.int64))
        except REFUSALS as error:
            raise invalid(path, f"cannot embed a history: {str(error)[:200]}") from None
        if query.shape != (dimensions,) or not np.isfinite(query).all():
            raise invalid(path, f"gives a query of shape {query.shape}, not ({dimensions},)")
        return tower

    def embed(self, recent: npt.NDArray[np.int64]) -> Floats:
        """The query of a user, shape (dimensions,).

        Args:
            recent: rows of the last items, newest first, shape (h,), h >= 1; -1 is ignored.
        """
        feeds: dict[str, Any] = {
            "recent": recent[None],
            "weight": np.ones((1, len(recent)), np.float32),
        }
        query: Floats = self._graph.run(["query"], feeds)[0][0]
        return query
