"""What a ranker is, what rows one can be fitted on, and the linear one; `trees` has the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from pipelines.train.graphs import linear_graph
from rankstream.errors import InvalidInput

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]
Parameters = Mapping[str, float | int]

INVERSE_PENALTY: Final = 0.1


@dataclass(frozen=True, eq=False)
class Ranker:
    """A fitted model: `predict` maps features, shape (n, d), to pctr, float64, shape (n,).

    `predict_pcvr` does so to the probability of a purchase; None: it was not trained on them.
    `shapley` maps features to what each adds to the logit as it was fitted (not corrected or
    calibrated), against the rows it was fitted on, float64, shape (n, d); None: no exact ones.
    """

    family: str
    graph: bytes
    predict: Callable[[Floats], npt.NDArray[np.float64]]
    parameters: Mapping[str, str | float | int]
    predict_pcvr: Callable[[Floats], npt.NDArray[np.float64]] | None = None
    shapley: Callable[[Floats], npt.NDArray[np.float64]] | None = None


def check_rows(features: Floats, clicked: npt.NDArray[Any]) -> None:
    """Return if a ranker can be fitted on these rows.

    Raises: InvalidInput: no rows, labels that are not 0 or 1 (nan), one class only, or a feature
        that is not finite; nothing is fitted.
    """
    label = np.asarray(clicked, np.float64)
    bad = np.flatnonzero(~np.isin(label, (0.0, 1.0)))
    if len(bad):
        raise _invalid(f"the label of row {bad[0]} is {label[bad[0]]}, not 0 or 1")
    if not len(label) or label.min() == label.max():
        raise _invalid(f"{len(label)} rows, {int(label.sum())} of them clicked: one class only")
    rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(rows):
        place = int(np.argmin(np.isfinite(features[rows[0]])))
        raise _invalid(f"feature {place} of row {rows[0]} is {features[rows[0], place]}")


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: {problem}. No model was trained or registered. Mend the rows."
    )


def fit_logistic_regression(
    features: Floats,
    clicked: Labels,
    *,
    seed: int,
    sample_weight: Weights | None = None,
    tuned: Parameters | None = None,
) -> Ranker:
    """Logistic regression on standardised features; a constant feature gets no weight.

    Args:
        features: shape (n, d); clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0; None is 1 for every row.
        tuned: parameters in place of those that it has.

    Raises: InvalidInput, as check_rows.
    """
    check_rows(features, clicked)
    parameters = {"inverse_penalty": INVERSE_PENALTY, **(tuned or {})}
    mean = features.mean(axis=0, dtype=np.float64)
    # Column by column, and one copy of the rows: ten million of them are gigabytes.
    spread = np.array([column.std(dtype=np.float64) for column in features.T])
    scale = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
    standard = features - mean.astype(np.float32)
    standard *= scale.astype(np.float32)
    model = LogisticRegression(C=parameters["inverse_penalty"], max_iter=200, random_state=seed)
    model.fit(standard, clicked, sample_weight=sample_weight)
    weight, bias = model.coef_[0], float(model.intercept_[0])

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        probability: npt.NDArray[np.float64] = model.predict_proba((rows - mean) * scale)[:, 1]
        return probability

    return Ranker(
        family="logistic_regression",
        graph=linear_graph(mean, scale, weight, bias),
        predict=predict,
        parameters={**parameters, "seed": seed},
        shapley=lambda rows: (rows - mean) * (scale * weight),
    )
