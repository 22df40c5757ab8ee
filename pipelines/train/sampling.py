"""Fewer negatives to train on, and the probability that undoes it.

If each negative is kept with probability w, the odds that a model learns are 1/w times the true
ones, so p = q / (q + (1 - q) / w) for a learned q; in logits, log(w) is added.

Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014,
section 6.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from pipelines.train.graphs import shifted_graph
from pipelines.train.rankers import Floats, Labels, Ranker, Weights
from rankstream.errors import InvalidInput


def kept_rows(clicked: Labels, share: float, *, seed: int) -> npt.NDArray[np.intp]:
    """Rows with a click and a share of the others, ascending.

    Of each stretch of 1 / share others in a row one is drawn: how many are kept, and when, is then
    not left to chance, which the correction could not undo.

    Args:
        clicked: shape (n,), 0 or 1, in order of time; share: of the others, in (0, 1].

    Raises: InvalidInput: a share outside that.
    """
    if not 0.0 < share <= 1.0:
        raise InvalidInput(
            f"invalid_input: share of negatives {share:g} (above 0, at most 1). Nothing was"
            " trained. Give the share of impressions without a click that are to be kept."
        )
    others, rng = np.flatnonzero(clicked == 0), np.random.default_rng(seed)
    kept = round(share * len(others))
    if kept == 0:
        return np.flatnonzero(clicked)
    ends = np.arange(kept + 1) * len(others) // kept
    drawn = rng.integers(ends[:-1], ends[1:])
    # Stretches are not all of one length: where they begin is drawn as well, so all are as likely.
    drawn = (drawn + rng.integers(len(others))) % len(others)
    return np.sort(np.concatenate([np.flatnonzero(clicked), others[drawn]]))


def weights_of(clicked: Labels, share: float) -> Weights:
    """Of kept rows, shape (n,): a row that stands for 1 / share rows counts as so many.

    For models of several labels, of which one correction of a logit mends one only.
    """
    return np.where(clicked != 0, 1.0, 1.0 / share)


def fit_on_fewer(
    fit: Callable[..., Ranker],
    features: Floats,
    clicked: Labels,
    *,
    share: float,
    seed: int,
    sample_weight: Weights | None = None,
) -> Ranker:
    """A ranker fitted on fewer negatives whose pctr, in the graph as well, is that of all rows.

    Args:
        fit: takes features, clicked and seed, and sample_weight if there is one.
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0.

    Raises: InvalidInput, as kept_rows and `fit`.
    """
    rows = kept_rows(clicked, share, seed=seed)
    if sample_weight is not None:
        fit = partial(fit, sample_weight=sample_weight[rows])
    if share == 1.0:
        return fit(features, clicked, seed=seed)
    ranker = fit(features[rows], clicked[rows], seed=seed)

    def predict(asked: Floats) -> npt.NDArray[np.float64]:
        learned = ranker.predict(asked)
        return learned / (learned + (1.0 - learned) / share)

    return Ranker(
        family=ranker.family,
        graph=shifted_graph(ranker.graph, math.log(share)),
        predict=predict,
        parameters={**ranker.parameters, "negatives": share},
        shapley=ranker.shapley,
    )
