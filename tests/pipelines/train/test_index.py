"""The index by size: what it takes, what it promises, and what it costs in recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.train import index as training_index
from pipelines.train.index import BuiltIndex, build_index, nearest, recall
from rankstream.adapters.cell_choice import choose, moments_of
from rankstream.adapters.cell_index import CellIndex
from rankstream.adapters.faiss_index import FaissIndex, load_index
from rankstream.contracts.subset import Subset, packed
from rankstream.retrieval import Floats, exact

M, DIM, CLUSTERS = 30_000, 16, 60
NONE = np.empty(0, np.int64)


def _unit(vectors: npt.NDArray[np.floating]) -> Floats:
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


RNG = np.random.default_rng(11)
CLUSTER = RNG.integers(0, CLUSTERS, M)
CENTRES = RNG.normal(size=(CLUSTERS, DIM))
VECTORS = _unit(CENTRES[CLUSTER] + 0.7 * RNG.normal(size=(M, DIM)))
# A query is the mean of some items of two clusters.
QUERIES = _unit(
    np.stack(
        [
            VECTORS[RNG.choice(np.flatnonzero(np.isin(CLUSTER, pair)), 6)].mean(axis=0)
            for pair in RNG.integers(0, CLUSTERS, (60, 2))
        ]
    )
)


@pytest.fixture(scope="module", params=[200, 30], ids=["cells", "cells_in_groups"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BuiltIndex, Path]:
    folder = tmp_path_factory.mktemp("index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_index, "_ITEMS_PER_CELL", request.param)
        return build_index(VECTORS, QUERIES[:30], folder, seed=1, exact_max=1_000), folder


@pytest.fixture
def index(built: tuple[BuiltIndex, Path]) -> FaissIndex | CellIndex:
    return load_index(built[1], size=M, coverage=built[0].coverage)


def test_few_items_are_searched_exactly(tmp_path: Path) -> None:
    found = build_index(VECTORS[:1_000], QUERIES, tmp_path, seed=1, exact_max=1_000)

    assert (found.coverage, found.recall) == (None, 1.0)
    assert found.order.tolist() == list(range(1_000))
    assert isinstance(load_index(tmp_path, size=1_000, coverage=None), FaissIndex)


def test_an_index_without_queries_or_out_of_the_targets_reach_is_exact(tmp_path: Path) -> None:
    untried = build_index(VECTORS, QUERIES[:0], tmp_path, seed=1, exact_max=1_000)
    beyond = build_index(
        VECTORS[:2_000], QUERIES, tmp_path, seed=1, exact_max=1_000, recall_target=1.01
    )

    assert untried.coverage is beyond.coverage is None


def test_of_too_many_items_for_exact_search_the_best_that_cells_reach_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_index, "_EXACT_INSTEAD_MAX", 1_500)

    found = build_index(
        VECTORS[:2_000], QUERIES, tmp_path, seed=1, exact_max=1_000, recall_target=1.01
    )

    assert found.coverage is not None
    assert 0.95 < found.recall <= 1
    assert isinstance(load_index(tmp_path, size=2_000, coverage=found.coverage), CellIndex)


def test_the_recall_that_was_asked_for_holds_on_other_queries(
    built: tuple[BuiltIndex, Path], index: FaissIndex | CellIndex
) -> None:
    truth = nearest(VECTORS[built[0].order], QUERIES[30:], 500, None)

    assert isinstance(index, CellIndex)
    assert built[0].recall >= 0.96
    assert recall(index, QUERIES[30:], truth, None) > 0.95


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("alike", [False, True], ids=["any", "by_cluster"])
def test_recall_holds_in_subsets_near_the_query_or_far_from_it(
    built: tuple[BuiltIndex, Path], index: FaissIndex | CellIndex, share: float, alike: bool
) -> None:
    if alike:
        passes = max(1, round(share * CLUSTERS)) > CLUSTER
    else:
        passes = np.random.default_rng(3).random(M) < share
    flags = passes[built[0].order]
    within = Subset(M, words=packed(flags))
    vectors = VECTORS[built[0].order]

    for query in QUERIES[30:]:
        rows, _ = index.search(query, 500, NONE, within)

        wanted = exact(vectors, query, 500, NONE, within).rows
        assert len(rows) == len(wanted) == min(500, within.count)
        assert len(np.intersect1d(rows, wanted)) >= 0.9 * len(wanted)
    assert recall(index, QUERIES[30:], nearest(vectors, QUERIES[30:], 500, within), within) > 0.95


@pytest.mark.parametrize("count", [1_000, 1_001])
@pytest.mark.parametrize("filtered", [False, True])
def test_many_rows_can_be_denied(
    built: tuple[BuiltIndex, Path], index: FaissIndex | CellIndex, count: int, filtered: bool
) -> None:
    vectors, query = VECTORS[built[0].order], QUERIES[31]
    denied = exact(vectors, query, count, NONE).rows
    within = Subset(M, rows=np.arange(0, M, 2)) if filtered else None

    rows, _ = index.search(query, 500, denied, within)

    wanted = exact(vectors, query, 500, denied, within).rows
    assert len(set(rows.tolist())) == 500
    assert not set(rows.tolist()) & set(denied.tolist())
    assert len(np.intersect1d(rows, wanted)) >= 450


def test_the_nearest_of_many_queries_are_those_of_exact_search() -> None:
    within = Subset(M, rows=np.arange(0, M, 7))

    for query, rows in zip(QUERIES, nearest(VECTORS, QUERIES, 50, within), strict=True):
        assert set(rows.tolist()) == set(exact(VECTORS, query, 50, NONE, within).rows.tolist())


def test_a_row_scored_by_itself_has_the_score_that_faiss_gives(
    index: FaissIndex | CellIndex,
) -> None:
    few = np.sort(np.random.default_rng(2).choice(M, 300, replace=False))

    rows, alone = index.search(QUERIES[0], 300, NONE, Subset(M, rows=few))
    among, of_faiss = index.search(QUERIES[0], M, NONE)

    score = dict(zip(among.tolist(), of_faiss.tolist(), strict=True))
    assert alone == pytest.approx([score[row] for row in rows.tolist()], abs=1e-4)


@pytest.mark.parametrize("parts", [1, 4])
def test_cells_are_chosen_until_the_coverage_is_expected(parts: int) -> None:
    order = np.argsort(CLUSTER, kind="stable")
    bounds = np.searchsorted(CLUSTER[order], np.arange(CLUSTERS + 1))
    moments, sizes = moments_of(VECTORS[order], bounds, parts), np.diff(bounds)

    for query in QUERIES:
        best = exact(VECTORS, query, 300, NONE).rows
        shares = []
        for coverage in (0.5, 0.9, 0.99):
            cells, centre = choose(moments, query, sizes, sizes, 300, coverage)
            shares.append(float(np.isin(CLUSTER[best], cells).mean()))
            assert sizes[cells].sum() >= 300
            assert centre == pytest.approx(moments.cell_mean[cells] @ query, abs=1e-6)

        assert shares == sorted(shares)
        assert shares[-1] > 0.9
