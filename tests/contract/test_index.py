"""What every Index promises, on the fake and on FAISS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from rankstream.adapters.faiss_index import FaissIndex
from rankstream.errors import InvalidArtifact
from rankstream.ports import Index
from rankstream.retrieval import Floats
from rankstream.testing import FakeIndex

VECTORS = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
QUERY = np.random.default_rng(4).normal(size=8).astype(np.float32)
NONE = np.empty(0, np.int64)


@pytest.fixture(params=[FakeIndex, FaissIndex.build], ids=["fake", "faiss"])
def index(request: pytest.FixtureRequest) -> Index:
    build: Callable[[Floats], Index] = request.param
    return build(VECTORS)


def test_knows_its_size(index: Index) -> None:
    assert (index.size, index.dimensions) == (200, 8)


def test_gives_best_first(index: Index) -> None:
    rows, similarity = index.search(QUERY, 10, NONE)

    assert rows.dtype == np.int64
    assert similarity.dtype == np.float32
    assert len(set(rows.tolist())) == 10
    assert (np.diff(similarity) <= 0).all()
    assert similarity == pytest.approx(VECTORS[rows] @ QUERY, abs=1e-5)


def test_excluded_rows_never_come_back_and_the_list_is_still_full(index: Index) -> None:
    top, _ = index.search(QUERY, 50, NONE)

    rows, _ = index.search(QUERY, 50, np.concatenate([top, top]))

    assert len(rows) == 50
    assert not set(rows.tolist()) & set(top.tolist())


def test_more_than_there_is_gives_all_there_is(index: Index) -> None:
    rows, _ = index.search(QUERY, 1_000, np.arange(10))

    assert sorted(rows.tolist()) == list(range(10, 200))


def test_nothing_is_left_when_all_is_excluded(index: Index) -> None:
    rows, similarity = index.search(QUERY, 5, np.arange(200))

    assert len(rows) == len(similarity) == 0


def test_a_saved_index_gives_the_same_answer(tmp_path: Path) -> None:
    built = FaissIndex.build(VECTORS)
    built.save(tmp_path / "index.faiss")

    loaded = FaissIndex.load(tmp_path, size=200)

    assert loaded.search(QUERY, 20, NONE)[0].tolist() == built.search(QUERY, 20, NONE)[0].tolist()


def _l2() -> faiss.Index:
    index = faiss.IndexFlatL2(8)
    index.add(VECTORS)
    return index


@pytest.mark.parametrize(
    ("content", "size", "problem"),
    [
        (None, 200, "is not a FAISS index"),
        (b"not an index at all", 200, "is not a FAISS index"),
        ("inner", 199, "has 200 rows, its item table 199"),
        ("l2", 200, "not the inner product"),
    ],
)
def test_a_file_that_is_no_such_index_is_refused_by_name(
    tmp_path: Path, content: bytes | str | None, size: int, problem: str
) -> None:
    path = tmp_path / "index.faiss"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "inner":
        FaissIndex.build(VECTORS).save(path)
    elif content == "l2":
        FaissIndex(_l2()).save(path)

    with pytest.raises(InvalidArtifact, match=problem):
        FaissIndex.load(tmp_path, size=size)


def test_an_inverted_file_honours_exclusions_too() -> None:
    quantizer = faiss.IndexFlatIP(8)
    inverted = faiss.IndexIVFFlat(quantizer, 8, 8, faiss.METRIC_INNER_PRODUCT)
    inverted.train(VECTORS)
    inverted.add(VECTORS)
    index = FaissIndex(inverted, nprobe=8)

    rows, _ = index.search(QUERY, 20, np.arange(100))

    assert len(rows) == 20
    assert (rows >= 100).all()
