"""The first stage of ranking: a linear model over a few features decides who is ranked at all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def linear_scores(vectors: npt.NDArray[np.float32], weights: Scores) -> Scores:
    """Weighted sum of each row, shape (n,); its bits do not depend on the other rows.

    Args:
        vectors: shape (n, k), finite; weights: shape (k,).

    >>> linear_scores(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([1.0, 0.5])).tolist()
    [2.0, 5.0]
    """
    # Not `vectors @ weights`: BLAS adds up in another order for another number of rows.
    sums: Scores = np.multiply(vectors, weights, order="C").sum(axis=1)
    return sums


def best(scores: Scores, keep: int) -> tuple[npt.NDArray[np.intp], float]:
    """Places of the `keep` largest scores, ascending, and the largest score of the others.

    Of equal scores the first stay. `keep` is at least 1 and below len(scores).

    >>> kept, cut = best(np.array([0.5, 2.0, 1.0, 2.0]), 2)
    >>> kept.tolist(), cut
    ([1, 3], 1.0)
    """
    order = np.argsort(-scores, kind="stable")
    return np.sort(order[:keep]), float(scores[order[keep]])
