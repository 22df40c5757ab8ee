"""What stands in for the vector of an item that a retrieval artefact was built without."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

NAME: Final = "cold.npz"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ColdVectors:
    """Vectors of new items by category, float32, shape (dim,); `rest` for any other category."""

    by_category: dict[str, Floats]
    rest: Floats

    def of(self, category: str) -> Floats:
        """The vector of a new item."""
        return self.by_category.get(category, self.rest)


def no_vectors(dimensions: int) -> ColdVectors:
    """Those of an artefact that has none: new items are neither near nor far."""
    return ColdVectors({}, np.zeros(dimensions, np.float32))


def write_cold_vectors(path: Path, cold: ColdVectors) -> None:
    """Write the vectors where `read_cold_vectors` finds them."""
    names = list(cold.by_category)
    vectors = np.array([*cold.by_category.values(), cold.rest], np.float32)
    np.savez(path, category=np.array(names, np.str_), vectors=vectors)


def read_cold_vectors(folder: Path, *, dimensions: int) -> ColdVectors:
    """The vectors of an artefact folder.

    Raises: InvalidArtifact: absent, not an npz of these columns, or of other dimensions.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
            names = [str(name) for name in columns["category"].tolist()]
            vectors = columns["vectors"].astype(np.float32)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise _invalid(path, f"is not a file of vectors: {error}") from None
    if vectors.shape != (len(names) + 1, dimensions) or not np.isfinite(vectors).all():
        raise _invalid(path, f"has {vectors.shape} vectors of {len(names)} categories and the rest")
    return ColdVectors(dict(zip(names, vectors, strict=False)), vectors[-1])


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Build the index again.")
