"""What every Index promises, on the fake and on FAISS."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from pipelines.train.index import build_index
from rankstream.adapters.cell_choice import CellMoments, Parts, write_moments
from rankstream.adapters.cell_index import coverage_of
from rankstream.adapters.faiss_index import FaissIndex, load_index
from rankstream.contracts.manifest import Manifest
from rankstream.contracts.subset import Subset, packed
from rankstream.errors import InvalidArtifact
from rankstream.ports import Index
from rankstream.retrieval import Floats
from rankstream.testing import FakeIndex

VECTORS = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
QUERY = np.random.default_rng(4).normal(size=8).astype(np.float32)
NONE = np.empty(0, np.int64)


ALL = np.arange(200)


def _cells(folder: Path) -> tuple[Index, Floats]:
    """An index of cells, and its vectors in the order of its rows."""
    built = build_index(VECTORS, VECTORS, folder, seed=1, exact_max=100)
    assert built.coverage is not None
    return load_index(folder, size=200, coverage=built.coverage), VECTORS[built.order]


def _part(folder: Path, exact_max: int) -> tuple[Index, Floats]:
    """An index of 200 of 400 vectors, which are spread over all its cells."""
    vectors = np.random.default_rng(5).normal(size=(400, 8)).astype(np.float32)
    built = build_index(vectors, vectors, folder, seed=1, exact_max=exact_max)
    part = np.sort(np.random.default_rng(6).permutation(400)[:200])
    index = load_index(folder, size=400, coverage=built.coverage, part=part)
    return index, vectors[built.order][part]


@pytest.fixture(params=["fake", "exact", "cells", "exact part", "cells part"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Index, Floats]:
    """An index and its vectors, row by row."""
    if request.param == "cells":
        return _cells(tmp_path)
    if request.param.endswith("part"):
        return _part(tmp_path, 400 if request.param == "exact part" else 100)
    return FakeIndex(VECTORS) if request.param == "fake" else FaissIndex.build(VECTORS), VECTORS


@pytest.fixture
def index(made: tuple[Index, Floats]) -> Index:
    return made[0]


@pytest.fixture
def vectors(made: tuple[Index, Floats]) -> Floats:
    return made[1]


def test_knows_its_size(index: Index) -> None:
    assert (index.size, index.dimensions) == (200, 8)


def test_gives_best_first(index: Index, vectors: Floats) -> None:
    rows, similarity = index.search(QUERY, 10, NONE)

    assert rows.dtype == np.int64
    assert similarity.dtype == np.float32
    assert len(set(rows.tolist())) == 10
    assert (np.diff(similarity) <= 0).all()
    assert similarity == pytest.approx(vectors[rows] @ QUERY, abs=0.1)
    # 8 bits of a component's range are half a hundredth of it


def test_excluded_rows_never_come_back_and_the_list_is_still_full(index: Index) -> None:
    top, _ = index.search(QUERY, 50, NONE)

    rows, _ = index.search(QUERY, 50, np.concatenate([top, top]))

    assert len(rows) == 50
    assert not set(rows.tolist()) & set(top.tolist())


@pytest.mark.parametrize("share", [0.9, 0.3, 0.03])
def test_only_rows_of_the_subset_come_back_and_the_list_is_full(index: Index, share: float) -> None:
    flags = np.random.default_rng(8).random(200) < share
    out = np.flatnonzero(flags)[:3]

    for subset in (Subset(200, words=packed(flags)), Subset(200, rows=np.flatnonzero(flags))):
        rows, similarity = index.search(QUERY, 30, out, subset)

        assert len(rows) == len(set(rows.tolist())) == min(30, subset.count - 3)
        assert flags[rows].all()
        assert not set(rows.tolist()) & set(out.tolist())
        assert (np.diff(similarity) <= 0).all()


def test_all_of_a_subset_come_back_if_as_many_are_asked_for(index: Index) -> None:
    rows, _ = index.search(QUERY, 150, NONE, Subset(200, rows=ALL[::2]))

    assert sorted(rows.tolist()) == ALL[::2].tolist()


def test_nothing_comes_back_from_an_empty_subset(index: Index) -> None:
    empty = Subset(200, words=packed(np.zeros(200, bool)))

    assert len(index.search(QUERY, 5, NONE, empty)[0]) == 0


def test_more_than_there_is_gives_all_there_is(index: Index) -> None:
    rows, _ = index.search(QUERY, 1_000, np.arange(10))

    assert sorted(rows.tolist()) == list(range(10, 200))


def test_nothing_is_left_when_all_is_excluded(index: Index) -> None:
    rows, similarity = index.search(QUERY, 5, np.arange(200))

    assert len(rows) == len(similarity) == 0


def test_a_saved_index_gives_the_same_answer(tmp_path: Path) -> None:
    built = FaissIndex.build(VECTORS)
    built.save(tmp_path / "index.faiss")

    loaded = load_index(tmp_path, size=200, coverage=None)

    assert loaded.search(QUERY, 20, NONE)[0].tolist() == built.search(QUERY, 20, NONE)[0].tolist()


def _other(kind: str) -> faiss.Index:
    """An index that is not one of ours, of VECTORS."""
    index: faiss.Index
    if kind == "l2":
        index = faiss.IndexFlatL2(8)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(8, 4, faiss.METRIC_INNER_PRODUCT)
    else:
        quantizer = faiss.IndexFlatIP(8)
        residual, metric = kind != "whole", faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, 8, 4, faiss.ScalarQuantizer.QT_8bit, metric, residual
        )
        index.train(VECTORS)
    index.add(VECTORS)
    return index


@pytest.mark.parametrize(
    ("content", "size", "coverage", "problem"),
    [
        (None, 200, None, "is not a FAISS index"),
        (b"not an index at all", 200, None, "is not a FAISS index"),
        ("exact", 199, None, "has 200 rows, its item table 199"),
        ("l2", 200, None, "not the inner product"),
        ("hnsw", 200, None, "is a IndexHNSWFlat"),
        ("shuffled", 200, None, "its manifest no index_coverage"),
        ("shuffled", 200, 0.9, "has rows out of order in cell"),
        ("whole", 200, 0.9, "cells of other codes"),
    ],
)
def test_a_file_that_is_no_such_index_is_refused_by_name(
    tmp_path: Path, content: bytes | str | None, size: int, coverage: float | None, problem: str
) -> None:
    path = tmp_path / "index.faiss"
    write_moments(tmp_path, CellMoments(np.zeros((4, 8), np.float32), np.ones((4, 8), np.float32)))
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "exact":
        FaissIndex.build(VECTORS).save(path)
    elif content is not None:
        faiss.write_index(_other(content), str(path))

    with pytest.raises(InvalidArtifact, match=problem):
        load_index(tmp_path, size=size, coverage=coverage)


@pytest.mark.parametrize("coverage", ["0.9", 1, 1.0, 0.0])
def test_a_coverage_that_is_no_share_is_refused_by_name(coverage: str | float) -> None:
    manifest = Manifest(
        model_id="m",
        role="retrieval",
        family="pure_svd",
        created_ms=1,
        data_version="d",
        train_from_ms=1,
        train_until_ms=2,
        files={},
        parity_max_abs=0.0,
    )

    assert coverage_of(manifest) is None
    with pytest.raises(InvalidArtifact, match="has index_coverage"):
        coverage_of(manifest.model_copy(update={"parameters": {"index_coverage": coverage}}))


@pytest.mark.parametrize("cells", [None, 60, 32])
def test_moments_of_another_index_are_refused_by_name(tmp_path: Path, cells: int | None) -> None:
    _cells(tmp_path)
    mean, variance = np.zeros((4, 8), np.float32), np.ones((4, 8), np.float32)
    parts = None
    if cells is not None:
        parts = Parts(np.zeros((cells, 8), np.float32), np.ones(cells, np.float32), variance[0])
    write_moments(tmp_path, CellMoments(mean, variance, parts))

    with pytest.raises(InvalidArtifact, match="its index 64 cells"):
        load_index(tmp_path, size=200, coverage=0.9)
    (tmp_path / "cells.npz").write_bytes(b"no moments")
    with pytest.raises(InvalidArtifact, match="is not a file of cells"):
        load_index(tmp_path, size=200, coverage=0.9)


def test_an_index_stays_usable_when_its_folder_is_removed(tmp_path: Path) -> None:
    index, _ = _cells(tmp_path)
    before = index.search(QUERY, 20, NONE)[0].tolist()
    (tmp_path / "index.faiss").unlink()

    assert index.search(QUERY, 20, NONE)[0].tolist() == before
