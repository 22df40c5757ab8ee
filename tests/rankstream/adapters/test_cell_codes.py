"""The best rows of cells, beside the scores of all rows one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankstream.adapters.cell_codes import CellCodes, Floats
from rankstream.contracts.subset import packed

CELLS = 6
ROUNDED = 4e-4  # at most, of weights of 16 bits: ten times half a unit of .02 / 32767, by 127
QUERY = np.array([0.3, -0.7, 0.1, 0.0, 0.5, -0.2, 0.9, -0.1, 0.4, 0.2], np.float32)
MEAN = np.random.default_rng(1).normal(size=(CELLS, len(QUERY))).astype(np.float32)


def codes_of(sizes: list[int], *, distinct: int) -> CellCodes:
    """Cells of such sizes; what their vectors are off their means is one of `distinct`."""
    rng = np.random.default_rng(2)
    drawn = rng.normal(size=(distinct, len(QUERY))).astype(np.float32)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(len(QUERY)),
        len(QUERY),
        CELLS,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
        False,
    )
    trained = np.concatenate([drawn.min(axis=0), np.ptp(drawn, axis=0) + 1e-3])
    faiss.copy_array_to_vector(trained.astype(np.float32), index.sq.trained)
    index.is_trained = True
    cell = np.repeat(np.arange(CELLS), sizes)
    inside = np.ascontiguousarray(drawn[rng.integers(0, distinct, len(cell))])
    index.add_core(len(cell), faiss.swig_ptr(inside), None, faiss.swig_ptr(cell))
    index.by_residual = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes"
        faiss.write_index(index, str(path))
        return CellCodes(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), path)


def check(
    codes: CellCodes, cells: list[int], members: npt.NDArray[np.bool_] | None, k: int
) -> None:
    """The k best, by score: of equal rows any will do."""
    inside = np.concatenate([np.arange(codes.bounds[c], codes.bounds[c + 1]) for c in cells])
    if members is not None:
        inside = inside[members[inside]]
    scores = codes.scores(QUERY, inside, MEAN)
    k = min(k, len(inside))
    centre = (MEAN[cells] @ QUERY).astype(np.float32)
    words = None if members is None else packed(members)

    rows, found = codes.nearest(QUERY, k, np.array(cells, np.int64), centre, words)

    assert found == pytest.approx(np.sort(scores)[::-1][:k], abs=ROUNDED)
    assert len(set(rows.tolist())) == k
    assert set(rows.tolist()) <= set(inside.tolist())
    assert found == pytest.approx(_of(codes, rows), abs=ROUNDED)


def _of(codes: CellCodes, rows: npt.NDArray[np.int64]) -> Floats:
    order = np.argsort(rows)
    scores = np.empty(len(rows), np.float32)
    scores[order] = codes.scores(QUERY, rows[order], MEAN)
    return scores


@given(
    st.lists(st.integers(0, 900), min_size=CELLS, max_size=CELLS),
    st.integers(1, 400),
    st.lists(st.integers(0, CELLS - 1), min_size=1, unique=True),
    st.sampled_from([None, 0.9, 0.3, 0.01]),
    st.integers(1, 700),
)
@settings(max_examples=60, deadline=None)
def test_the_best_rows_of_some_cells_are_found(
    sizes: list[int], distinct: int, cells: list[int], share: float | None, k: int
) -> None:
    sizes[cells[0]] += 5
    codes = codes_of(sizes, distinct=distinct)
    members = None
    if share is not None:
        members = np.random.default_rng(3).random(sum(sizes)) < share
        members[codes.bounds[cells[0]]] = True

    check(codes, cells, members, k)


@pytest.mark.parametrize("share", [None, 0.5])
def test_ties_by_the_thousand_are_cut_at_k(share: float | None) -> None:
    codes = codes_of([5_000, 0, 3_000, 1, 0, 4_000], distinct=1)
    members = None if share is None else np.random.default_rng(1).random(12_001) < share

    check(codes, [0, 2, 3, 5], members, 500)


def test_a_query_of_zeros_has_k_rows_with_a_score_of_zero() -> None:
    codes = codes_of([900] * CELLS, distinct=300)
    cells, zeros = np.arange(CELLS), np.zeros(CELLS, np.float32)

    rows, scores = codes.nearest(np.zeros_like(QUERY), 400, cells, zeros, None)

    assert len(set(rows.tolist())) == 400
    assert not scores.any()
