"""Metrics of a ranker on held-out impressions, and of retrieval on held-out likes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

Doubles = npt.NDArray[np.float64]

CALIBRATION_BINS: Final = 10


def ranker_metrics(clicked: npt.NDArray[np.uint8], pctr: Doubles) -> dict[str, float]:
    """AUC, log loss, expected calibration error and mean predicted over observed CTR.

    Args:
        clicked: shape (n,), 0 or 1, both present; pctr: shape (n,), in [0, 1].
    """
    return {
        "auc": float(roc_auc_score(clicked, pctr)),
        "log_loss": float(log_loss(clicked, pctr)),
        "ece": calibration_error(clicked, pctr),
        "calibration": float(pctr.mean() / clicked.mean()),
        "impressions": float(len(clicked)),
    }


def calibration_error(clicked: npt.NDArray[np.uint8], pctr: Doubles) -> float:
    """Expected calibration error over bins of equal count.

    Source: Nguyen and O'Connor, "Posterior calibration", EMNLP 2015 (adaptive bins).
    """
    order = np.argsort(pctr, kind="stable")
    bins = np.array_split(order, min(CALIBRATION_BINS, len(order)))
    gaps = [len(b) * abs(float(pctr[b].mean()) - float(clicked[b].mean())) for b in bins]
    return float(sum(gaps) / len(order))


def recall_at(
    k: int,
    queries: list[npt.NDArray[np.int64]],
    wanted: npt.NDArray[np.int64],
    retrieve: Callable[[npt.NDArray[np.int64], int], npt.NDArray[np.int64]],
) -> float:
    """Share of likes whose item is among the k candidates of the user's history just before it.

    Args:
        queries: of each like, the rows of the user's last items, -1 unknown; those items are
            excluded from its candidates.
        wanted: shape (n,), row of the liked item.
        retrieve: (history, k) -> rows of candidates.

    Returns: in [0, 1]; nan without likes.
    """
    if not queries:
        return float("nan")
    found = [
        bool(np.any(retrieve(history, k) == item))
        for history, item in zip(queries, wanted.tolist(), strict=True)
    ]
    return float(np.mean(found))
