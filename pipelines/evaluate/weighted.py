"""Metrics as functions of how often each user counts: what a bootstrap over users replays.

A statistic takes weights of users, shape (b, users), and returns its value under each of the b
weightings, float64, shape (b,); nan where undefined. Under weights of one it is the metric itself.
All but AUC depend on the data through sums by user, so that a replicate is a row of a product of
matrices; AUC sorts once and then needs one cumulative sum per replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np
from scipy.special import entr

from pipelines.evaluate.impressions import Doubles, Impressions, Ints
from pipelines.evaluate.lists import LIST_METRICS, ListMetric, RankedLists, rank_lists
from pipelines.evaluate.metrics import THRESHOLD, equal_count_bins, user_auc

Statistic = Callable[[Doubles], Doubles]
Builder = Callable[[Impressions, Doubles], Statistic]

EPS: Final = float(np.finfo(np.float64).eps)  # scikit-learn's clip of a certain prediction


@dataclass(frozen=True)
class Metric:
    """A metric that has intervals.

    `better`: 1 higher, -1 lower, 0 neither (calibration is best at 1). `paired`: whether two
    models' values are subtracted: the biases of two calibration errors are not of one size.
    `of_lists`: the metric of lists, down to `depth`, that it is the mean of; it needs the query of
    each impression.
    """

    build: Builder
    better: int
    paired: bool = True
    of_lists: ListMetric | None = None
    depth: int = 0


def _ratio(numerator: Doubles, denominator: Doubles) -> Doubles:
    empty = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    ratio: Doubles = np.divide(numerator, denominator, out=empty, where=denominator > 0)
    return ratio


def ratio_of_sums(numerator: Doubles, denominator: Doubles, user: Ints, users: int) -> Statistic:
    """Sum of one column over the sum of another, the latter not negative.

    Args: numerator, denominator: shape (n,); user: shape (n,), in [0, users).
    """
    above = np.bincount(user, numerator, users)
    below = np.bincount(user, denominator, users)
    return lambda weights: _ratio(weights @ above, weights @ below)


def mean_of(values: Doubles, user: Ints, users: int) -> Statistic:
    """Mean over the rows that have a value (nan: none). Args: shape (n,), as `ratio_of_sums`."""
    known = ~np.isnan(values)
    return ratio_of_sums(np.where(known, values, 0.0), known.astype(np.float64), user, users)


def auc(impressions: Impressions, pctr: Doubles) -> Statistic:
    """Share of (click, no click) pairs in the right order, ties half; equal to scikit-learn's
    `roc_auc_score` with these sample weights.
    """
    clicked = impressions.clicked == 1
    below = pctr[~clicked]
    order = np.argsort(below, kind="stable")
    loser, winner = impressions.user[~clicked][order], impressions.user[clicked]
    low = np.searchsorted(below[order], pctr[clicked], "left")
    high = np.searchsorted(below[order], pctr[clicked], "right")

    def under(weights: Doubles) -> float:
        beaten = np.concatenate(([0.0], np.cumsum(weights[loser])))
        won = weights[winner]
        pairs = float(won.sum() * beaten[-1])
        if not pairs > 0:
            return np.nan
        # Not `@`: BLAS threads cost more than they save on a vector, fourfold on a busy machine.
        return float(np.einsum("i,i->", won, beaten[low] + beaten[high])) / (2 * pairs)

    # One replicate at a time: its arrays stay in the cache, and memory does not grow with b.
    return lambda weights: np.array([under(row) for row in weights])


def gauc(impressions: Impressions, pctr: Doubles) -> Statistic:
    """AUC within users, weighted by impressions; users with one class are left out."""
    found = user_auc(impressions.clicked, pctr, impressions.user)
    known = ~np.isnan(found.auc)
    n = np.where(known, found.n, 0).astype(np.float64)
    owner = np.arange(len(n))
    return ratio_of_sums(n * np.where(known, found.auc, 0.0), n, owner, impressions.users)


def _losses(impressions: Impressions, pctr: Doubles) -> Doubles:
    p = np.clip(pctr, EPS, 1 - EPS)
    loss: Doubles = -np.log(np.where(impressions.clicked == 1, p, 1 - p))
    return loss


def log_loss(impressions: Impressions, pctr: Doubles) -> Statistic:
    """Mean of -log of the probability given to what happened."""
    loss = _losses(impressions, pctr)
    return ratio_of_sums(loss, np.ones(len(loss)), impressions.user, impressions.users)


def normalised_entropy(impressions: Impressions, pctr: Doubles) -> Statistic:
    """Log loss over the entropy of the replicate's own base rate."""
    loss = log_loss(impressions, pctr)
    ones, clicked = np.ones(len(pctr)), impressions.clicked.astype(np.float64)
    base = ratio_of_sums(clicked, ones, impressions.user, impressions.users)

    def under(weights: Doubles) -> Doubles:
        rate = base(weights)
        return _ratio(loss(weights), entr(rate) + entr(1 - rate))

    return under


def calibration(impressions: Impressions, pctr: Doubles) -> Statistic:
    """Mean predicted over observed click rate."""
    clicked = impressions.clicked.astype(np.float64)
    return ratio_of_sums(pctr, clicked, impressions.user, impressions.users)


@dataclass(frozen=True, eq=False)
class GapNorm:
    """ECE, or with `largest` MCE, over the bins of the sample: replicates do not cut them anew.

    `gap` float64, shape (users, bins), pctr minus clicks; `n` float64, shape (users, bins). As a
    statistic it is a norm of the gaps by bin, and `noise` the norm of how far a replicate's gaps
    lie from the sample's: by the triangle inequality it bounds how far the norms lie apart.
    """

    gap: Doubles
    n: Doubles
    largest: bool

    def __call__(self, weights: Doubles) -> Doubles:
        return self._norm(self._gaps(weights))

    def noise(self, weights: Doubles) -> Doubles:
        """Norm of the replicate's gaps minus the sample's, shape (b,)."""
        return self._norm(self._gaps(weights) - self._gaps(np.ones((1, len(self.gap)))))

    def _gaps(self, weights: Doubles) -> Doubles:
        """By bin: per impression of the bin for MCE, of all for ECE; an empty bin has none."""
        gap, n = weights @ self.gap, weights @ self.n
        base = n if self.largest else np.broadcast_to(n.sum(axis=1, keepdims=True), n.shape)
        return np.nan_to_num(_ratio(gap, base), nan=0.0)

    def _norm(self, gaps: Doubles) -> Doubles:
        norm: Doubles = np.abs(gaps).max(axis=1) if self.largest else np.abs(gaps).sum(axis=1)
        return norm


def calibration_gap(impressions: Impressions, pctr: Doubles, *, largest: bool = False) -> GapNorm:
    """ECE, or with `largest` MCE."""
    of_row = equal_count_bins(pctr)
    bins = int(of_row.max()) + 1
    cell, cells = impressions.user * bins + of_row, impressions.users * bins
    gap = np.bincount(cell, pctr - impressions.clicked, cells).reshape(-1, bins)
    n = np.bincount(cell, minlength=cells).reshape(-1, bins).astype(np.float64)
    return GapNorm(gap.astype(np.float64), n, largest)


def _at_threshold(
    impressions: Impressions,
    pctr: Doubles,
    *,
    of: Literal["accuracy", "precision", "recall"],
    threshold: float,
) -> Statistic:
    predicted, clicked = pctr >= threshold, impressions.clicked == 1
    right, base = {
        "accuracy": (predicted == clicked, np.ones(len(pctr), np.bool_)),
        "precision": (predicted & clicked, predicted),
        "recall": (predicted & clicked, clicked),
    }[of]
    return ratio_of_sums(
        right.astype(np.float64), base.astype(np.float64), impressions.user, impressions.users
    )


def threshold_metrics(threshold: float = THRESHOLD) -> dict[str, Metric]:
    """accuracy, precision and recall when a pctr from `threshold` on predicts a click."""
    return {
        "accuracy": Metric(partial(_at_threshold, of="accuracy", threshold=threshold), 1),
        "precision": Metric(partial(_at_threshold, of="precision", threshold=threshold), 1),
        "recall": Metric(partial(_at_threshold, of="recall", threshold=threshold), 1),
    }


def _mean_of_lists(
    impressions: Impressions, lists: RankedLists, metric: ListMetric, k: int
) -> Statistic:
    owner = np.empty(len(lists.query), np.int64)
    owner[np.searchsorted(lists.query, _queries(impressions))] = impressions.user
    return mean_of(metric(lists, k), owner, impressions.users)


def _queries(impressions: Impressions) -> Ints:
    assert impressions.query is not None, "a metric of lists needs queries"
    return impressions.query


def _of_lists(impressions: Impressions, pctr: Doubles, *, metric: ListMetric, k: int) -> Statistic:
    lists = rank_lists(_queries(impressions), pctr, impressions.clicked, k)
    return _mean_of_lists(impressions, lists, metric, k)


def list_metrics_at(k: int) -> dict[str, Metric]:
    """ndcg, map, mrr, hit rate and recall at k, of queries with a click."""
    return {
        f"{name}_at_{k}": Metric(partial(_of_lists, metric=found, k=k), 1, True, found, k)
        for name, found in LIST_METRICS.items()
    }


def statistics(
    metrics: Mapping[str, Metric], impressions: Impressions, pctr: Doubles
) -> dict[str, Statistic]:
    """Every metric of these predictions; lists are ranked once, to the deepest k asked for.

    Args: metrics: name -> metric, none of lists if queries are unknown; pctr: shape (n,).
    """
    depth = max((metric.depth for metric in metrics.values()), default=0)
    lists = rank_lists(_queries(impressions), pctr, impressions.clicked, depth) if depth else None
    return {
        name: _mean_of_lists(impressions, lists, metric.of_lists, metric.depth)
        if lists and metric.of_lists
        else metric.build(impressions, pctr)
        for name, metric in metrics.items()
    }


METRICS: Final[Mapping[str, Metric]] = {
    "auc": Metric(auc, 1),
    "gauc": Metric(gauc, 1),
    "log_loss": Metric(log_loss, -1),
    "normalised_entropy": Metric(normalised_entropy, -1),
    "ece": Metric(calibration_gap, -1, paired=False),
    "mce": Metric(partial(calibration_gap, largest=True), -1, paired=False),
    "calibration": Metric(calibration, 0),
    **threshold_metrics(),
    **list_metrics_at(5),
    **list_metrics_at(10),
}
