"""What rows are corrected for before a ranker is fitted: where they were shown, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from pipelines.features.replay import TrainingRows
from pipelines.train.position import (
    Examined,
    click_weights,
    fit_examined,
    fit_on_relevance,
    serve_at_mean,
)
from pipelines.train.rankers import Ranker, Weights
from pipelines.train.sampling import fit_on_fewer
from pipelines.train.trees import fit_xgboost
from pipelines.train.weights import effective_rows, group_weights, popularity_weights
from rankstream.errors import InvalidInput
from rankstream.features import spec

GROUPS_MAX: Final = 20


class PositionBias(StrEnum):
    """What is done about it: nothing, position as an input of training only, or weights."""

    IGNORE = "ignore"
    INPUT = "input"
    WEIGHTS = "weights"


@dataclass(frozen=True)
class Corrections:
    """`popularity_power` as popularity_weights; `balanced_by`: a feature whose values are groups
    that get equal weight, "" for none.

    Held-out clicks are as biased as those that are learned from: their metrics say how well clicks
    in logged positions are predicted, and a ranker that has not learned the bias scores lower.
    """

    position: PositionBias = PositionBias.IGNORE
    popularity_power: float = 0.0
    balanced_by: str = ""


UNCORRECTED: Final = Corrections()


def _examine(
    rows: TrainingRows, corrections: Corrections, *, negatives: float, seed: int
) -> Examined | None:
    """What the positions of these rows are worth, if that is to be corrected for.

    Raises: InvalidInput: there are fewer negatives as well, or as fit_examined.
    """
    if corrections.position is PositionBias.IGNORE:
        return None
    if negatives != 1.0:
        raise InvalidInput(
            f"invalid_input: share of negatives {negatives:g} together with position bias"
            f" {corrections.position} (limit 1). No model was trained. Choose one of the two."
        )
    weight = row_weights(rows, corrections)
    return fit_examined(rows.features, rows.clicked, rows.position, seed=seed, sample_weight=weight)


def row_weights(rows: TrainingRows, corrections: Corrections) -> Weights | None:
    """Weights of the rows, mean 1, shape (n,); None if all are 1.

    Raises: InvalidInput, as popularity_weights; no such feature, or one of too many values.
    """
    weight = np.ones(len(rows))
    if corrections.popularity_power:
        weight *= popularity_weights(rows.item, power=corrections.popularity_power)
    if corrections.balanced_by:
        weight *= group_weights(_groups(rows, corrections.balanced_by))
    return weight / weight.mean() if np.ptp(weight) else None


def _groups(rows: TrainingRows, feature: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    if feature not in spec.NAMES:
        raise InvalidInput(
            f"invalid_input: groups by {feature!r}, which is no feature. No model was trained."
            f" Choose one of {', '.join(spec.NAMES)}."
        )
    values = rows.features[:, spec.NAMES.index(feature)]
    if (found := len(np.unique(values))) > GROUPS_MAX:
        raise InvalidInput(
            f"invalid_input: {feature} has {found} values (limit {GROUPS_MAX} groups)."
            " No model was trained. Choose a feature of few values."
        )
    return values


def fit_corrected(
    fit: Callable[..., Ranker],
    rows: TrainingRows,
    corrections: Corrections,
    *,
    negatives: float,
    seed: int,
) -> Ranker:
    """A ranker of these rows whose pctr is calibrated to their click rate.

    Args:
        fit: takes features, clicked, seed and sample_weight.

    Raises: InvalidInput: there are fewer negatives as well; as fit_examined, row_weights,
        kept_rows and `fit`.
    """
    examined = _examine(rows, corrections, negatives=negatives, seed=seed)
    features, clicked, position = rows.features, rows.clicked, rows.position
    weight = row_weights(rows, corrections)
    effective = {} if weight is None else {"effective_rows": effective_rows(weight)}
    if examined is None:
        ranker = fit_on_fewer(
            fit, features, clicked, share=negatives, seed=seed, sample_weight=weight
        )
    else:
        if corrections.position is PositionBias.WEIGHTS:
            by_click = click_weights(clicked, position, examined.examination)
            by_click = by_click if weight is None else by_click * weight
            effective = {"effective_rows": effective_rows(by_click)}
            ranker = fit(features, clicked, seed=seed, sample_weight=by_click)
        elif fit is fit_xgboost:
            ranker = examined.ranker
        else:
            ranker = fit_on_relevance(
                fit, features, clicked, position, examined, seed=seed, sample_weight=weight
            )
        ranker = serve_at_mean(ranker, features, clicked)
    return replace(ranker, parameters={**ranker.parameters, **_told(examined), **effective})


def _told(examined: Examined | None) -> dict[str, str]:
    if examined is None:
        return {}
    return {"examination": " ".join(f"{value:.4f}" for value in examined.examination)}
