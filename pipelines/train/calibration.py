"""Probabilities that hold on rows later than those that a ranker was fitted on.

A ranker of the first rows is asked about later ones, and a rising curve from its logit to theirs is
fitted there: a line (Platt), or a line through the pooled bins of an isotonic regression. The curve
is then put behind the ranker that was fitted on all rows, in its graph too. Whether one is used
at all, later rows decide: a curve of one part of the tail is judged by log loss on the next part.

Sources: Platt, "Probabilistic Outputs for Support Vector Machines", 1999; Zadrozny and Elkan,
"Transforming Classifier Scores into Accurate Multiclass Probability Estimates", KDD 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from pipelines.train.graphs import curved_graph
from pipelines.train.rankers import Floats, Labels, Ranker, check_rows
from rankstream.errors import InvalidInput

Doubles = npt.NDArray[np.float64]

TAIL_SHARE: Final = 0.2
TAIL_PARTS: Final = 4
# A curve is fitted on this many parts before the one that judges it, or before what is to come.
FITTED_PARTS: Final = 2
BINS: Final = 50
# In standard errors: what all parts together must gain at least, and what none may lose.
GAIN_Z_MIN: Final = 1.0
_LIKELY: Final = 1e-7


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
    kept = np.concatenate([[True], (np.diff(x) > 0.0) & (np.diff(np.maximum.accumulate(y)) > 0.0)])
    return Curve(x[kept], y[kept], 1.0)


FITS: Final[Mapping[Method, Callable[[Doubles, Labels], Curve]]] = {
    Method.PLATT: platt,
    Method.ISOTONIC: isotonic,
}


def fit_calibrated(
    fit: Callable[..., Ranker],
    features: Floats,
    clicked: Labels,
    *,
    method: Method,
    seed: int,
) -> Ranker:
    """A ranker whose pctr, in the graph as well, is calibrated on the last rows.

    Args:
        fit: takes features, clicked and seed.
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        method: BEST uses a curve only if it is better on rows after those that it was fitted on.

    Raises: InvalidInput, as `fit`; if a method is asked for by name, as check_rows for the last
        rows, or if its curve falls.
    """
    ranker = fit(features, clicked, seed=seed)
    cut = round(len(clicked) * (1 - TAIL_SHARE))
    if method is Method.NONE or (method is Method.BEST and not _teaches(clicked[:cut])):
        return ranker
    earlier = fit(features[:cut], clicked[:cut], seed=seed)
    return calibrate(ranker, earlier, features[cut:], clicked[cut:], method=method)


def calibrate(
    ranker: Ranker, earlier: Ranker, features: Floats, clicked: Labels, *, method: Method
) -> Ranker:
    """The ranker with a curve behind it, fitted on what an earlier one says of later rows.

    Args:
        earlier: fitted as `ranker` was, on none of these rows.
        features: shape (n, d), the last rows, in order of time; clicked: shape (n,), 0 or 1.

    Raises: InvalidInput, as fit_calibrated.
    """
    parts = _parts(len(clicked))
    newest = slice(parts[-FITTED_PARTS].start, None)
    if method is not Method.BEST:
        check_rows(features[newest], clicked[newest])
    elif not all(_teaches(clicked[part]) for part in parts):
        return ranker
    logit = _logit(earlier.predict(features))
    chosen = chosen_method(logit, clicked) if method is Method.BEST else method
    if chosen is Method.NONE:
        return ranker
    curve = FITS[chosen](logit[newest], clicked[newest])
    if curve.rises:
        return _mapped(ranker, chosen, curve)
    if method is Method.BEST:
        return ranker
    raise InvalidInput(
        f"invalid_input: calibration {chosen} of {ranker.family} on its last {len(clicked)} rows"
        f" turns the order of scores around (slope {curve.slopes.min():.3g}, must be above 0)."
        " No model was registered. Mend the rows, or train with --calibration none."
    )


def _parts(n: int) -> list[slice]:
    edges = [n * part // TAIL_PARTS for part in range(TAIL_PARTS + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def chosen_method(logit: Doubles, clicked: Labels) -> Method:
    """The method whose curves lower log loss most on rows behind those that they were fitted on.

    Args:
        logit: shape (n,), of rows in order of time that the ranker was not fitted on.
        clicked: shape (n,), both labels in each of TAIL_PARTS parts.

    NONE if the gain of all is less than GAIN_Z_MIN standard errors, or if one part loses so much:
    what holds in one part and not in the next need not hold for what is to come.
    """
    parts = _parts(len(logit))
    gains = {}
    for method, fitted in FITS.items():
        found = []
        # A curve of fewer rows than the one that is to be used would be judged for its noise.
        for place in range(FITTED_PARTS, TAIL_PARTS):
            before = slice(parts[place - FITTED_PARTS].start, parts[place].start)
            curve, held = fitted(logit[before], clicked[before]), parts[place]
            found.append(
                _loss(logit[held], clicked[held]) - _loss(curve(logit[held]), clicked[held])
            )
        gain = np.concatenate(found)
        if _z(gain) >= GAIN_Z_MIN and min(map(_z, found)) > -GAIN_Z_MIN:
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


def _teaches(clicked: Labels) -> bool:
    """Whether both labels are there."""
    return bool(len(clicked)) and bool(clicked.min() < clicked.max())


def _mapped(ranker: Ranker, method: Method, curve: Curve) -> Ranker:
    def predict(asked: Floats) -> Doubles:
        return 1.0 / (1.0 + np.exp(-curve(_logit(ranker.predict(asked)))))

    return replace(
        ranker,
        graph=curve.graph(ranker.graph),
        predict=predict,
        parameters={**ranker.parameters, "calibration": method.value},
    )
