"""Probabilities that hold on rows that a ranker was not fitted on.

A ranker of most of the rows is asked about the others, drawn at random, and a rising curve from its
logit to theirs is fitted there: a line (Platt), or a line through the pooled bins of an isotonic
regression. The curve is then put behind the ranker that was fitted on all rows, in its graph too.
So it has to be of use to other rankers of the same kind: it is found with FOLDS of them, and used
only if the curve of one lowers the log loss of another on rows that neither has seen.

Rows are not held out by time: how far an earlier ranker is off on later rows is drift for the most
part, and the ranker of all rows has seen where that went.

Sources: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Zadrozny and Elkan,
"Transforming Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pipelines.train.graphs import curved_graph
from pipelines.train.rankers import Floats, Labels, Ranker, check_rows
from rankstream.errors import InvalidInput

Doubles = npt.NDArray[np.float64]

Places = npt.NDArray[np.intp]

HELD_SHARE: Final = 0.2  # of all rows, in each fold
FOLDS: Final = 2
BINS: Final = 50
# In standard errors: what all folds together must gain at least, and what none may lose.
GAIN_Z_MIN: Final = 2.0
LOSS_Z_MAX: Final = 1.0
_LIKELY: Final = 1e-7
_APART: Final = 1e-6  # logits closer than this are one: a graph of float32 cannot tell them apart


class Method(StrEnum):
    """How to calibrate."""

    NONE = "none"
    PLATT = "platt"
    ISOTONIC = "isotonic"
    BEST = "best"


@dataclass(frozen=True, eq=False)
class Curve:
    """A piecewise linear map of logits through the points (x, y), x ascending, shapes (k,).

    `ends` is its slope before the first point and behind the last.
    """

    x: Doubles
    y: Doubles
    ends: float

    @property
    def slopes(self) -> Doubles:
        """Of the k + 1 pieces."""
        return np.concatenate([[self.ends], np.diff(self.y) / np.diff(self.x), [self.ends]])

    @property
    def rises(self) -> bool:
        """Whether it keeps the order of what it maps."""
        return bool(np.all(self.slopes > 0.0))

    def __call__(self, logit: Doubles) -> Doubles:
        """The calibrated logits, shape (n,)."""
        inside = np.interp(logit, self.x, self.y)
        below = np.minimum(logit - self.x[0], 0.0)
        above = np.maximum(logit - self.x[-1], 0.0)
        mapped: Doubles = inside + self.ends * (below + above)
        return mapped

    def graph(self, graph: bytes) -> bytes:
        """A ranker's graph with its logit mapped."""
        return curved_graph(graph, self.x, self.slopes, float(self.y[0]))


def platt(logit: Doubles, clicked: Labels) -> Curve:
    """The line whose sigmoid fits best; shapes (n,), both labels among them."""
    model = LogisticRegression(C=1e6).fit(logit[:, None], clicked)
    return Curve(np.zeros(1), np.array([float(model.intercept_[0])]), float(model.coef_[0, 0]))


def isotonic(logit: Doubles, clicked: Labels) -> Curve:
    """Through the middles of BINS bins with equally many rows, pooled until they rise.

    Lines between the middles keep the order that steps would make ties of; shapes (n,).
    """
    order = np.argsort(logit, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    size = np.array([len(part) for part in bins], np.float64)
    middle = np.array([logit[part].mean() for part in bins])
    share = np.array([clicked[part].mean() for part in bins])
    risen = IsotonicRegression().fit_transform(np.arange(len(bins)), share, sample_weight=size)
    pool = np.concatenate([[0], np.cumsum(np.diff(risen) > 0.0)])
    n = np.bincount(pool, size)
    # A pool of one label only is not certain.
    rate = (np.bincount(pool, size * share) + 1.0) / (n + 2.0)
    x, y = np.bincount(pool, size * middle) / n, np.log(rate / (1.0 - rate))
    kept = np.concatenate(
        [[True], (np.diff(x) > _APART) & (np.diff(np.maximum.accumulate(y)) > 0.0)]
    )
    return Curve(x[kept], y[kept], 1.0)


FITS: Final[Mapping[Method, Callable[[Doubles, Labels], Curve]]] = {
    Method.PLATT: platt,
    Method.ISOTONIC: isotonic,
}


def held_out(n: int, *, seed: int) -> list[Places]:
    """The rows that each fold is not fitted on, ascending; no row is in two."""
    order = np.random.default_rng(seed).permutation(n)
    size = round(n * HELD_SHARE)
    return [np.sort(order[fold * size : (fold + 1) * size]) for fold in range(FOLDS)]


def fit_calibrated(
    fit: Callable[[Places], Ranker],
    features: Floats,
    clicked: Labels,
    *,
    method: Method,
    seed: int,
) -> Ranker:
    """A ranker whose pctr, in the graph as well, is calibrated on rows held out.

    Args:
        fit: a ranker of some of the rows, which are given in order.
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        method: BEST uses a curve only if it is better on rows that it was not fitted on.

    Raises: InvalidInput, as `fit`; if a method is asked for by name, as check_rows for the rows
        held out, or if its curve falls.
    """
    ranker = fit(np.arange(len(clicked)))
    if method is Method.NONE:
        return ranker
    folds = held_out(len(clicked), seed=seed)
    held = np.concatenate(folds)
    if method is not Method.BEST:
        check_rows(features[held], clicked[held])
    elif not _each_teaches(clicked, folds):
        return ranker
    logits = [
        _logit(fit(np.setdiff1d(np.arange(len(clicked)), fold)).predict(features[fold]))
        for fold in folds
    ]
    observed = [clicked[fold] for fold in folds]
    chosen = chosen_method(logits, observed) if method is Method.BEST else method
    if chosen is Method.NONE:
        return ranker
    curve = FITS[chosen](np.concatenate(logits), clicked[held])
    if curve.rises:
        return _mapped(ranker, chosen, curve)
    if method is Method.BEST:
        return ranker
    raise InvalidInput(
        f"invalid_input: calibration {chosen} of {ranker.family} on {len(held)} rows held out"
        f" turns the order of scores around (slope {curve.slopes.min():.3g}, must be above 0)."
        " No model was registered. Mend the rows, or train with --calibration none."
    )


def chosen_method(logits: Sequence[Doubles], clicked: Sequence[Labels]) -> Method:
    """The method whose curve of one fold lowers the log loss of the next the most.

    Args:
        logits: of each fold, shape (n,), of rows that its ranker was not fitted on.
        clicked: of each fold, shape (n,), both labels.

    NONE if the gain of all is less than GAIN_Z_MIN standard errors, or if one fold loses more than
    LOSS_Z_MAX: what is of use to one ranker and not to the other need not be to the one served.
    """
    gains = {}
    for method, fitted in FITS.items():
        found = []
        for fold, (logit, observed) in enumerate(zip(logits, clicked, strict=True)):
            curve = fitted(logits[fold - 1], clicked[fold - 1])
            found.append(_loss(logit, observed) - _loss(curve(logit), observed))
        gain = np.concatenate(found)
        if _z(gain) >= GAIN_Z_MIN and min(map(_z, found)) > -LOSS_Z_MAX:
            gains[method] = float(gain.mean())
    return max(gains, key=lambda method: gains[method], default=Method.NONE)


def _z(gain: Doubles) -> float:
    """Mean over its standard error."""
    return float(gain.mean() / max(gain.std() / np.sqrt(len(gain)), 1e-12))


def _loss(logit: Doubles, clicked: Labels) -> Doubles:
    """Log loss of each row."""
    return np.logaddexp(0.0, np.where(clicked == 1, -logit, logit))


def _logit(pctr: Doubles) -> Doubles:
    likely = np.clip(pctr, _LIKELY, 1.0 - _LIKELY)
    return np.log(likely / (1.0 - likely))


def _each_teaches(clicked: Labels, folds: Sequence[Places]) -> bool:
    """Whether both labels are in each fold, and in the rest of each."""
    parts = [part for fold in folds for part in (clicked[fold], np.delete(clicked, fold))]
    return all(bool(len(part)) and bool(part.min() < part.max()) for part in parts)


def _mapped(ranker: Ranker, method: Method, curve: Curve) -> Ranker:
    def predict(asked: Floats) -> Doubles:
        return 1.0 / (1.0 + np.exp(-curve(_logit(ranker.predict(asked)))))

    return replace(
        ranker,
        graph=curve.graph(ranker.graph),
        predict=predict,
        parameters={**ranker.parameters, "calibration": method.value},
    )
