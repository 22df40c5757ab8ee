"""Logits, click probabilities and the order that they put candidates in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankstream.contracts.manifest import Utility
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


def expected_utility(weights: Utility, pctr: Floats, pcvr: Floats, value: Floats) -> Floats:
    """What showing each candidate is worth, shape (n,): click * pctr + purchase * pcvr * value.

    Args:
        pctr, pcvr: probabilities of a click and of a purchase, shape (n,).
        value: of a purchase, shape (n,) or (1,); where not above 0: the weights' default.

    >>> weights = Utility(click=1.0, purchase=2.0, value="price", value_default=3.0)
    >>> half = np.array([0.5, 0.5], np.float32)
    >>> expected_utility(weights, half, half, np.array([10.0, -1.0], np.float32)).tolist()
    [10.5, 3.5]
    """
    worth = np.where(value > 0, value, np.float32(weights.value_default))
    return (weights.click * pctr + weights.purchase * pcvr * worth).astype(np.float32)


def order(preference: Floats) -> npt.NDArray[np.intp]:
    """Candidates by falling preference, shape (n,): a logit, or a utility.

    Equal ones keep the order they came in.
    """
    return np.argsort(-preference, kind="stable")


def check_finite(scores: Floats, model_id: str) -> None:
    """Raises: DependencyUnavailable if any score, shape (n,), is not a finite number."""
    bad = np.count_nonzero(~np.isfinite(scores))
    if bad:
        raise DependencyUnavailable(
            f"dependency_unavailable: model {model_id} gave {bad} of {len(scores)} scores that are"
            " not finite. Nothing was answered. Point its alias to another model."
        )
