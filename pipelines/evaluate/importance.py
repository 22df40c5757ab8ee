"""What a ranker looks at: what it loses without a feature, and how its pctr follows one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from pipelines.evaluate.impressions import Doubles

Features = npt.NDArray[np.float32]
Predict = Callable[[Features], Doubles]

ROWS_MAX: Final = 2_000
REPEATS: Final = 3
FOLLOWED: Final = 6
POINTS: Final = 12


@dataclass(frozen=True)
class Importance:
    """AUC that is lost when a feature's values are dealt out anew among the impressions.

    `spread`: standard deviation over the dealings. Features that say the same share what either
    would lose alone. `shap`: mean size of its Shapley values of the logit; None: there are none.
    """

    feature: str
    auc_lost: float
    spread: float
    shap: float | None = None


@dataclass(frozen=True, eq=False)
class Dependence:
    """Mean pctr with the feature set to `value` in every impression; shapes (points,)."""

    feature: str
    value: Doubles
    pctr: Doubles


@dataclass(frozen=True, eq=False)
class Attention:
    """Features by what they are worth to a ranker, most first, and the first few followed."""

    importances: tuple[Importance, ...]
    dependences: tuple[Dependence, ...]
    rows: int


def attention(
    predict: Predict,
    features: Features,
    clicked: npt.NDArray[np.uint8],
    names: Sequence[str],
    *,
    seed: int,
    shapley: Predict | None = None,
) -> Attention:
    """Both, on at most ROWS_MAX impressions drawn by `seed`.

    Args:
        features: shape (n, len(names)); clicked: shape (n,), 0 or 1, both present.
        shapley: maps features to their Shapley values, of the same shape.

    Source: Fisher, Rudin and Dominici, "All Models are Wrong, but Many are Useful", JMLR 2019
        (importance); Friedman, "Greedy Function Approximation", Annals of Statistics 2001
        (dependence); Lundberg et al., "From Local Explanations to Global Understanding with
        Explainable AI for Trees", Nature Machine Intelligence 2020 (mean size of Shapley values).
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(features))[:ROWS_MAX]
    if clicked[rows].min() == clicked[rows].max():
        # One class among those drawn: take them all.
        rows = np.arange(len(features))
    drawn, label = features[rows].copy(), clicked[rows]
    whole = float(roc_auc_score(label, predict(drawn)))
    shap = None if shapley is None else np.abs(shapley(drawn)).mean(axis=0).tolist()
    found = []
    for place, name in enumerate(names):
        kept = drawn[:, place].copy()
        lost = [0.0] * REPEATS
        if np.ptp(kept) > 0:
            for repeat in range(REPEATS):
                drawn[:, place] = rng.permutation(kept)
                lost[repeat] = whole - float(roc_auc_score(label, predict(drawn)))
            drawn[:, place] = kept
        size = None if shap is None else shap[place]
        found.append(Importance(name, float(np.mean(lost)), float(np.std(lost, ddof=1)), size))
    found.sort(key=lambda one: -one.auc_lost)
    followed = [one.feature for one in found[:FOLLOWED] if one.auc_lost > 0]
    return Attention(
        tuple(found),
        tuple(_follow(predict, drawn, names.index(name), name) for name in followed),
        len(rows),
    )


def _follow(predict: Predict, features: Features, place: int, name: str) -> Dependence:
    kept = features[:, place].copy()
    # Quantiles: where impressions are, and no further.
    values = np.unique(np.quantile(kept, np.linspace(0.02, 0.98, POINTS)))
    means = []
    for value in values.tolist():
        features[:, place] = value
        means.append(float(predict(features).mean()))
    features[:, place] = kept
    return Dependence(name, values.astype(np.float64), np.array(means))
