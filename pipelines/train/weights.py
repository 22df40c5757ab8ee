"""Weights of rows: what was shown too rarely or too often counts as if it had not been.

All have mean 1, so that a penalty weighs what it weighs without them. Weights that depend on
what a ranker sees leave the click probability given that as it is, and say where to learn it best.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.train.rankers import Weights
from rankstream.errors import InvalidInput

# A weight above this many times the smallest is cut: a little bias for much less variance.
WEIGHT_RATIO_MAX: Final = 20.0


def inverse_propensity(propensity: Weights, *, ratio_max: float = WEIGHT_RATIO_MAX) -> Weights:
    """1 / propensity, cut at `ratio_max` times the smallest, over the mean; shape (n,).

    Args:
        propensity: shape (n,), logging policy's probability of what was shown, in (0, 1].

    Raises: InvalidInput: a propensity outside (0, 1].
    Source: Schnabel, Swaminathan, Singh, Chandak and Joachims, "Recommendations as Treatments",
        ICML 2016; self-normalised as in Swaminathan and Joachims, NIPS 2015.
    """
    bad = np.flatnonzero(~((propensity > 0.0) & (propensity <= 1.0)))
    if len(bad):
        raise _refused(
            f"the propensity of row {bad[0]} is {propensity[bad[0]]:g} and {len(bad)} rows are like"
            " it (above 0, at most 1)",
            "Leave out rows whose logging policy is unknown.",
        )
    return _cut(1.0 / propensity, ratio_max)


def popularity_weights(item: npt.NDArray[np.int64], *, power: float) -> Weights:
    """Impressions of the row's item to the power -`power`, cut, over the mean; shape (n,).

    Args:
        item: shape (n,), from 0; power: 0 leaves rows alone, 1 gives all items the same weight.

    Raises: InvalidInput: a power outside [0, 1].
    Source: Steck, "Item Popularity and Recommendation Accuracy", RecSys 2011.
    """
    if not 0.0 <= power <= 1.0:
        raise _refused(
            f"popularity power {power:g} (0 to 1)", "Give 0 for none, 1 for equal items."
        )
    shown = np.bincount(item).astype(np.float64)[item]
    return _cut(shown**-power, WEIGHT_RATIO_MAX)


def group_weights(group: npt.NDArray[Any]) -> Weights:
    """One over the size of the row's group, cut, over the mean; shape (n,).

    Args: group: shape (n,), of any sortable type.
    """
    _, code = np.unique(group, return_inverse=True)
    return _cut(1.0 / np.bincount(code)[code], WEIGHT_RATIO_MAX)


def effective_rows(weight: Weights) -> float:
    """How many rows of equal weight would have the variance of these: sum squared over squares.

    Source: Kish, "Survey Sampling", 1965.
    """
    return float(weight.sum() ** 2 / np.sum(weight**2))


def _cut(weight: Weights, ratio_max: float) -> Weights:
    cut = np.minimum(weight, ratio_max * weight.min())
    normalised: Weights = cut / cut.mean()
    return normalised


def _refused(problem: str, advice: str) -> InvalidInput:
    return InvalidInput(f"invalid_input: {problem}. No model was trained. {advice}")
