"""Scores of rankers fitted with several seeds on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, figure
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.train.calibration import Method, fit_calibrated
from pipelines.train.rankers import Ranker

SEEDS: Final = (1, 2, 3, 4, 5)
SHOWN: Final = {"auc": "auc", "log_loss": "logloss", "ece": "ece"}

Fit = Callable[..., Ranker]
Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


def fitted(fit: Fit, train: tuple[Features, Labels]) -> list[Ranker]:
    """A ranker per seed."""
    return [fit(*train, seed=seed) for seed in SEEDS]


def scores_of(rankers: Sequence[Ranker], test: tuple[Features, Labels]) -> list[dict[str, float]]:
    """Metrics of the test rows, one set per ranker."""
    return [ranker_metrics(test[1], ranker.predict(test[0])) for ranker in rankers]


def scored(
    fit: Fit, train: tuple[Features, Labels], test: tuple[Features, Labels]
) -> list[dict[str, float]]:
    """Metrics of the test rows, one set per seed."""
    return scores_of(fitted(fit, train), test)


def calibrated(fit: Fit, method: Method) -> Fit:
    """The fit with a curve behind it."""

    def fit_all(features: Features, clicked: Labels, *, seed: int) -> Ranker:
        def of_rows(rows: npt.NDArray[np.intp]) -> Ranker:
            return fit(features[rows], clicked[rows], seed=seed)

        return fit_calibrated(of_rows, features, clicked, method=method, seed=seed)

    return fit_all


def figures(prefix: str, scores: Sequence[dict[str, float]]) -> list[Figure]:
    """`prefix`.auc, .logloss and .ece: mean over the seeds and its standard error."""
    return [
        figure(f"{prefix}.{name}", [score[metric] for score in scores], "")
        for metric, name in SHOWN.items()
    ]
