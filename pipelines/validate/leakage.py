"""What a row must not know: what happened once it was served, and its own label."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from pipelines.features.replay import TrainingRows
from pipelines.validate.limits import Limits
from pipelines.validate.reference import evenly
from pipelines.validate.verdicts import ROWS_NAMED, Check
from rankstream.features import spec

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

FUTURE: Final = "feature time"
LEAK: Final = "label leak"
AUC_CLASS_ROWS_MAX: Final = 20_000
_IDLE: Final = tuple(k for k, name in enumerate(spec.NAMES) if name.endswith("_log_idle_s"))
_NEVER_LOG_S: Final = 20.0


def newest_event_ms(features: Floats, time_ms: Ints) -> Ints:
    """Event time of the newest event in each row's features, as its idle times tell it.

    `snapshot` cuts idle times off at 0, so an event at the time served or after it shows as an
    idle time of 0: as `time_ms` here, which feature_time_check refuses.

    Args:
        features: shape (n, spec.WIDTH); time_ms: shape (n,), when served.

    Returns: shape (n,), ms, to float32's seven digits of the age; 0: nothing has happened yet.
    """
    newest = np.zeros(len(time_ms), np.int64)
    for place in _IDLE:
        idle = features[:, place].astype(np.float64)
        # What is not in its range is for that check to name.
        known = (idle >= 0.0) & (idle < _NEVER_LOG_S)
        age_ms = np.rint(np.expm1(np.where(known, idle, 0.0)) * 1_000.0).astype(np.int64)
        np.maximum(newest, np.where(known, time_ms - age_ms, 0), out=newest)
    return newest


def feature_time_check(feature_time_ms: Ints, time_ms: Ints) -> Check:
    """Every feature is older than the row.

    Args:
        feature_time_ms: shape (n,), newest event that a row's features contain; 0: none.
        time_ms: shape (n,), when it was served.

    Raises: ValueError: the shapes differ.
    """
    if feature_time_ms.shape != time_ms.shape:
        raise ValueError(f"{feature_time_ms.shape} feature times for {time_ms.shape} rows")
    late = np.flatnonzero(feature_time_ms >= time_ms)
    threshold, n = "before the row is served", len(time_ms)
    if not len(late):
        return Check(FUTURE, "pass", 0.0, threshold, n, "every feature is older than its row")
    first = late[:ROWS_NAMED].tolist()
    ahead_ms = int(feature_time_ms[first[0]] - time_ms[first[0]])
    found = (
        f"{len(late)} of {n} rows contain an event at or after their own time:"
        f" row {first[0]} by {ahead_ms} ms"
    )
    return Check(FUTURE, "fail", float(len(late)), threshold, n, found, rows=tuple(first))


def leak_checks(
    columns: Floats, rows: TrainingRows, limits: Limits, skip: frozenset[str]
) -> list[Check]:
    """A feature that alone tells clicks from the rest fails.

    Args:
        columns: shape (spec.WIDTH, n), the transpose of the features.

    At most AUC_CLASS_ROWS_MAX rows of each label, evenly spaced in time, are looked at: an AUC is
    the same for any mix of labels, and known to within 0.01 then.
    """
    n = len(rows)
    positive, negative = np.flatnonzero(rows.clicked == 1), np.flatnonzero(rows.clicked == 0)
    fewest = min(len(positive), len(negative))
    threshold = f"AUC at most {limits.auc_max:g}, either way"
    if fewest < limits.auc_class_rows_min:
        words = f"{fewest} rows of the rarer label, {limits.auc_class_rows_min} are needed"
        return [Check(LEAK, "inconclusive", None, threshold, n, words)]
    kept = [kind[evenly(len(kind), AUC_CLASS_ROWS_MAX)] for kind in (positive, negative)]
    looked_at, clicked = np.concatenate(kept), np.repeat([1, 0], [len(kind) for kind in kept])
    checks, strongest, whose = [], 0.0, "none"
    for name, column in zip(spec.NAMES, columns, strict=True):
        if name in skip:
            continue
        auc = float(roc_auc_score(clicked, column[looked_at]))
        strength = max(auc, 1.0 - auc)
        if strength > limits.auc_max:
            words = f"tells clicks from the rest by itself: AUC {auc:.4f}"
            failed = Check(LEAK, "fail", strength, threshold, n, words, subject=name)
            checks.append(failed)
        elif strength > strongest:
            strongest, whose = strength, name
    words = f"strongest of the other features: {whose}"
    return [*checks, Check(LEAK, "pass", strongest, threshold, n, words)]
