"""Vectors of new items, and files that hold none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankstream.adapters.cold_vectors import ColdVectors, read_cold_vectors, write_cold_vectors
from rankstream.errors import InvalidArtifact

COLD = ColdVectors({"tea": np.array([1, 2], np.float32)}, np.array([3, 4], np.float32))


def test_what_is_written_is_read_and_other_categories_have_the_rest(tmp_path: Path) -> None:
    write_cold_vectors(tmp_path / "cold.npz", COLD)

    cold = read_cold_vectors(tmp_path, dimensions=2)

    assert cold.of("tea").tolist() == [1, 2]
    assert cold.of("never seen").tolist() == [3, 4]


def test_a_file_that_holds_no_such_vectors_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="is not a file of vectors"):
        read_cold_vectors(tmp_path, dimensions=2)
    write_cold_vectors(tmp_path / "cold.npz", COLD)
    with pytest.raises(InvalidArtifact, match="1 categories and the rest"):
        read_cold_vectors(tmp_path, dimensions=3)
