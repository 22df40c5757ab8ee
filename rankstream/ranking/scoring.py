"""Logits, click probabilities and the order that they put candidates in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankstream.errors import DependencyUnavailable

Floats = npt.NDArray[np.float32]


def logistic(logit: Floats) -> Floats:
    """Probability of each logit, shape (n,); never overflows.

    >>> logistic(np.array([0.0, 1000.0], np.float32)).tolist()
    [0.5, 1.0]
    """
    wide = logit.astype(np.float64)
    e = np.exp(-np.abs(wide))
    return np.where(wide >= 0, 1.0 / (1.0 + e), e / (1.0 + e)).astype(np.float32)


def order(logit: Floats) -> npt.NDArray[np.intp]:
    """Candidates by falling logit, shape (n,); equal ones keep the order they came in."""
    return np.argsort(-logit, kind="stable")


def check_finite(logit: Floats, model_id: str) -> None:
    """Raises: DependencyUnavailable if any logit, shape (n,), is not a finite number."""
    bad = np.count_nonzero(~np.isfinite(logit))
    if bad:
        raise DependencyUnavailable(
            f"dependency_unavailable: model {model_id} gave {bad} of {len(logit)} logits that are"
            " not finite. Nothing was answered. Point its alias to another model."
        )
