"""The first stage of ranking."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rankstream.ranking.preranking import best, linear_scores

NUMBERS = st.floats(-1e6, 1e6, width=32)


@given(
    vectors=arrays(np.float32, st.tuples(st.integers(1, 40), st.just(26)), elements=NUMBERS),
    weights=arrays(np.float64, 26, elements=st.floats(-10, 10)),
)
def test_bits_of_a_score_do_not_depend_on_the_other_rows(
    vectors: np.ndarray, weights: np.ndarray
) -> None:
    together = linear_scores(vectors, weights)
    # As columns of a wider array, too, which is how a record has them.
    wide = np.asfortranarray(np.hstack([vectors, vectors]))[:, :26]

    alone = np.concatenate(
        [linear_scores(vectors[i : i + 1], weights) for i in range(len(vectors))]
    )

    assert together.tolist() == alone.tolist() == linear_scores(wide, weights).tolist()


@given(scores=st.lists(st.integers(-3, 3), min_size=2, max_size=30), keep=st.integers(1, 29))
def test_the_best_stay_and_of_equal_ones_the_first(scores: list[int], keep: int) -> None:
    keep = min(keep, len(scores) - 1)

    places, cut = best(np.array(scores, float), keep)

    in_order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert places.tolist() == sorted(in_order[:keep])
    assert cut == max(scores[i] for i in in_order[keep:])
