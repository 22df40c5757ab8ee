"""FAISS against exact search in numpy, excluded rows and all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rankstream.adapters.faiss_index import FaissIndex
from rankstream.retrieval import exact


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 500), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_flat_index_gives_what_exact_search_gives(
    seed: int, items: int, k: int, share_excluded: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(items, 16)).astype(np.float32)
    query = rng.normal(size=16).astype(np.float32)
    excluded = np.flatnonzero(rng.random(items) < share_excluded)

    rows, similarity = FaissIndex.build(vectors).search(query, k, excluded)

    expected = exact(vectors, query, k, excluded)
    assert len(rows) == len(expected.rows)
    # Sums in another order differ in the last bits, so near-equal neighbours may change places.
    np.testing.assert_allclose(similarity, expected.similarity, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(vectors[rows] @ query, similarity, rtol=1e-4, atol=1e-4)
    assert not set(rows.tolist()) & set(excluded.tolist())
