"""Metrics of a ranker on held-out impressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import entr
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from pipelines.evaluate.impressions import Doubles, Ints, codes, labels, probabilities

CALIBRATION_BINS: Final = 10
THRESHOLD: Final = 0.5


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Bins of equal count in ascending pctr, at most as many as asked for.

    `predicted` and `observed` float64, shape (bins,), mean pctr and click rate; `n` int64, shape
    (bins,), impressions.
    """

    predicted: Doubles
    observed: Doubles
    n: Ints

    @property
    def ece(self) -> float:
        """Mean gap over impressions, in [0, 1]."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.n))

    @property
    def mce(self) -> float:
        """Largest gap of a bin, in [0, 1]."""
        return float(np.max(np.abs(self.predicted - self.observed)))


@dataclass(frozen=True, eq=False)
class UserAuc:
    """AUC within each user.

    `auc` float64, shape (users,), nan for users with one class only; `n` int64, shape (users,).
    """

    auc: Doubles
    n: Ints

    @property
    def mean(self) -> float:
        """gAUC: mean weighted by impressions, in [0, 1]; nan if no user has both classes."""
        kept = ~np.isnan(self.auc)
        return float(np.average(self.auc[kept], weights=self.n[kept])) if kept.any() else np.nan

    @property
    def users_left_out(self) -> float:
        """Share of users with one class only, of those with an impression."""
        return float(np.mean(np.isnan(self.auc[self.n > 0])))


def ranker_metrics(
    clicked: npt.ArrayLike,
    pctr: npt.ArrayLike,
    user: npt.ArrayLike | None = None,
    *,
    threshold: float = THRESHOLD,
) -> dict[str, float]:
    """Every metric of a model by name, all finite: one that is undefined is left out.

    Args:
        clicked: shape (n,), 0 or 1, both present; pctr: shape (n,), in [0, 1].
        user: shape (n,), ids; without them there is no gauc.
        threshold: pctr from which accuracy, precision and recall take a click as predicted.

    Returns: auc, log_loss, normalised_entropy, ece, mce, calibration (mean predicted over observed
        CTR), accuracy, precision, recall, threshold, impressions; with users gauc and
        gauc_users_left_out, the share of users with one class only.
    Raises: InvalidInput.
    """
    label = labels(clicked)
    score = probabilities(pctr, len(label))
    curve = calibration_curve(label, score)
    predicted = score >= threshold
    values = {
        "auc": float(roc_auc_score(label, score)),
        "log_loss": float(log_loss(label, score)),
        "normalised_entropy": normalised_entropy(label, score),
        "ece": curve.ece,
        "mce": curve.mce,
        "calibration": float(score.mean() / label.mean()),
        "accuracy": float(accuracy_score(label, predicted)),
        "recall": float(recall_score(label, predicted)),
        "threshold": threshold,
        "impressions": float(len(label)),
    }
    if predicted.any():
        values["precision"] = float(precision_score(label, predicted))
    if user is not None:
        by_user = user_auc(label, score, codes("user", user, len(label))[0])
        values["gauc_users_left_out"] = by_user.users_left_out
        if not np.isnan(by_user.mean):
            values["gauc"] = by_user.mean
    return values


def normalised_entropy(clicked: npt.ArrayLike, pctr: npt.ArrayLike) -> float:
    """Log loss over the entropy of the base rate: below 1 beats predicting the base rate.

    Args: as of `ranker_metrics`. Raises: InvalidInput.
    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
    """
    label = labels(clicked)
    rate = float(label.mean())
    return float(log_loss(label, probabilities(pctr, len(label))) / (entr(rate) + entr(1 - rate)))


def user_auc(clicked: npt.ArrayLike, pctr: npt.ArrayLike, user: Ints) -> UserAuc:
    """AUC of each user's impressions among themselves; ties count half.

    Args:
        clicked: shape (n,), 0 or 1; pctr: shape (n,); user: shape (n,), codes from 0.
    Source: Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017.
    """
    label, score = np.asarray(clicked, np.float64), np.asarray(pctr, np.float64)
    order = np.lexsort((score, user))
    place, owner, value = np.arange(len(order)), user[order], score[order]
    new_user = np.r_[True, owner[1:] != owner[:-1]]
    new_value = new_user | np.r_[True, value[1:] != value[:-1]]
    tied = np.cumsum(new_value) - 1
    first = np.flatnonzero(new_value)
    last = np.r_[first[1:], len(order)] - 1
    begin = np.maximum.accumulate(np.where(new_user, place, 0))
    rank = (first[tied] + last[tied]) / 2 - begin + 1
    users = int(user.max()) + 1
    n = np.bincount(owner, minlength=users)
    clicks = np.bincount(owner, label[order], users)
    won = np.bincount(owner, label[order] * rank, users) - clicks * (clicks + 1) / 2
    pairs = clicks * (n - clicks)
    auc = np.divide(won, pairs, out=np.full(users, np.nan), where=pairs > 0)
    return UserAuc(auc, n.astype(np.int64))


def equal_count_bins(pctr: Doubles, bins: int = CALIBRATION_BINS) -> Ints:
    """Bin of each row, shape (n,), ascending in pctr and numbered from 0 without gaps.

    Equal values share a bin: cut apart, the order of the rows would decide what a bin holds, and
    with it the calibration error of every model that predicts in steps.
    """
    order = np.argsort(pctr, kind="stable")
    value = pctr[order]
    sizes = [len(part) for part in np.array_split(order, min(bins, len(order)))]
    nominal = np.repeat(np.arange(len(sizes)), sizes)
    new = np.r_[True, value[1:] != value[:-1]]
    run = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    of_row = np.empty(len(order), np.int64)
    of_row[order] = np.unique(nominal[run], return_inverse=True)[1]
    return of_row


def calibration_curve(
    clicked: npt.ArrayLike, pctr: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> CalibrationCurve:
    """Mean predicted and observed click rate over bins of equal count.

    Args: as of `ranker_metrics`; one class will do.
    Sources: Nguyen and O'Connor, "Posterior calibration", EMNLP 2015 (adaptive bins); Naeini et
    al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015 (ECE, MCE).
    """
    label, score = np.asarray(clicked, np.float64), np.asarray(pctr, np.float64)
    of_row = equal_count_bins(score, bins)
    n = np.bincount(of_row)
    return CalibrationCurve(
        np.bincount(of_row, score) / n, np.bincount(of_row, label) / n, n.astype(np.int64)
    )
