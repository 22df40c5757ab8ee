"""How much more the top of a slate is looked at, and rankers that do not learn it.

The model is position-based: an impression is clicked if its position is examined and its item is
relevant, independently. Only products are seen, so examination is relative to the position that is
examined most, and relevance is P(click) there.

Source: Richardson, Dominowska and Ragno, "Predicting Clicks", WWW 2007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from pipelines.train.graphs import scaled_graph
from pipelines.train.rankers import Floats, Labels, Ranker, Weights, check_rows
from pipelines.train.trees import Margins, fit_xgboost
from rankstream.errors import InvalidInput

Positions = npt.NDArray[np.int64]

# Less is not told from nothing, and its inverse is the largest weight of a click.
EXAMINATION_MIN: Final = 0.01
# Deeper positions share the last one's examination: each has too few clicks of its own.
POSITIONS_MAX: Final = 50
STEPS_MAX: Final = 200
STEP_MIN: Final = 1e-6
_CERTAIN: Final = 1e-9


@dataclass(frozen=True, eq=False)
class Examined:
    """A ranker of relevance, and the examination that it was fitted with.

    `examination` float64, shape (positions,), over that of the most examined; no less than
    EXAMINATION_MIN, which is also what a position without impressions has.
    """

    ranker: Ranker
    examination: Weights


def randomised_examination(clicked: Labels, position: Positions) -> Weights:
    """Examination from impressions whose items were put in order by chance: ratios of click rates.

    Args:
        clicked: shape (n,), 0 or 1; position: shape (n,), from 0.

    Raises: InvalidInput: a position up to the last without an impression, or no clicks.
    Source: Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased Feedback",
        WSDM 2017.
    """
    place = _places(position)
    shown, clicks = np.bincount(place), np.bincount(place, clicked)
    empty = np.flatnonzero(shown == 0)
    if len(empty) or not clicks.max(initial=0.0):
        what = f"position {empty[0]} has no impression" if len(empty) else "there is no click"
        raise InvalidInput(
            f"invalid_input: {what} among {len(position)} randomised impressions. Nothing was"
            " estimated. Randomise more traffic."
        )
    return _relative(clicks / shown)


def examination_given(relevance: Weights, clicked: Labels, position: Positions) -> Weights:
    """Most likely examination if the relevance of each impression is known.

    Args:
        relevance: shape (n,), in (0, 1); clicked: shape (n,), 0 or 1; position: shape (n,).

    Source: the expectation and maximisation of Wang, Golbandi, Bendersky, Metzler and Najork,
        "Position Bias Estimation for Unbiased Learning to Rank in Personal Search", WSDM 2018.
    """
    place, clicked_here = _places(position), clicked != 0
    relevant = np.clip(relevance, _CERTAIN, 1.0 - _CERTAIN)
    found = np.full(int(place.max()) + 1, 0.5)
    for _ in range(STEPS_MAX):
        before, found = found, _examined_share(relevant, clicked_here, place, found)
        if np.abs(found - before).max() < STEP_MIN:
            break
    return _relative(found)


def _examined_share(
    relevant: Weights, clicked: npt.NDArray[np.bool_], place: Positions, examination: Weights
) -> Weights:
    """Share of each position's impressions that were examined, by the posterior of each."""
    here = examination[place]
    looked = np.where(clicked, 1.0, here * (1.0 - relevant) / (1.0 - here * relevant))
    shown = np.bincount(place, minlength=len(examination))
    return np.bincount(place, looked, len(examination)) / np.maximum(shown, 1)


def _relative(examination: Weights) -> Weights:
    relative: Weights = np.clip(examination / examination.max(), EXAMINATION_MIN, 1.0)
    return relative


def _places(position: Positions) -> Positions:
    return np.minimum(position, POSITIONS_MAX - 1)


class ClicksOfExamined:
    """Likelihood of clicks whose logit is that of relevance; finds the examination meanwhile.

    One tree is the maximisation of the ranker, one step of `examination` that of the positions.
    """

    def __init__(
        self,
        clicked: Labels,
        place: Positions,
        *,
        known: Weights | None,
        sample_weight: Weights | None,
    ) -> None:
        self._clicked = clicked != 0
        self._place = place
        self._known = known is not None
        self._weight = np.ones(len(clicked)) if sample_weight is None else sample_weight
        self._examination = np.full(int(place.max()) + 1, 0.5) if known is None else known

    def slopes(self, margin: Margins, rows: slice) -> tuple[Weights, Weights]:
        """The second derivative is its expectation, which is above 0."""
        clicked, place, weight = self._clicked[rows], self._place[rows], self._weight[rows]
        relevant = _relevant(margin)
        if not self._known:
            share = _examined_share(relevant, clicked, place, self._examination)
            self._examination = _relative(share)
        here = self._examination[place]
        unexamined = here * relevant * (1.0 - relevant) / (1.0 - here * relevant)
        first = np.where(clicked, relevant - 1.0, unexamined)
        return weight * first, weight * np.maximum(unexamined * (1.0 - relevant), _CERTAIN)

    def loss(self, margin: Margins, rows: slice) -> float:
        """Weighted mean of -log of the probability of what happened."""
        pctr = self._examination[self._place[rows]] * _relevant(margin)
        happened = np.where(self._clicked[rows], pctr, 1.0 - pctr)
        return float(np.average(-np.log(happened), weights=self._weight[rows]))


def _relevant(margin: Margins) -> Weights:
    relevant: Weights = np.clip(expit(margin.astype(np.float64)), _CERTAIN, 1.0 - _CERTAIN)
    return relevant


def fit_examined(
    features: Floats,
    clicked: Labels,
    position: Positions,
    *,
    seed: int,
    known: Weights | None = None,
    sample_weight: Weights | None = None,
) -> Examined:
    """Boosted trees of relevance, the position being an input of training only.

    Each impression enters with P(click) = examination[position] * P(relevant), so one that was
    hardly looked at teaches hardly anything; no weight is large, and so is no variance.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1; position: shape (n,).
        known: examination by position, in (0, 1], for instance of randomised traffic. If None it
            is found with the trees, which needs like rows in several positions.
        sample_weight: shape (n,), above 0.

    Raises: InvalidInput, as fit_xgboost; a position that `known` does not reach.
    Source: regression EM, Wang et al., WSDM 2018, a tree being one of its steps; the product of
        Guo et al., "PAL: a Position-bias Aware Learning Framework for CTR Prediction", RecSys 2019.
    """
    check_rows(features, clicked)
    place = _places(position)
    if known is not None and place.max() >= len(known):
        raise InvalidInput(
            f"invalid_input: position {place.max()} and an examination of {len(known)} positions."
            " No model was trained. Estimate it from all positions."
        )
    likelihood = ClicksOfExamined(clicked, place, known=known, sample_weight=sample_weight)
    ranker = fit_xgboost(features, clicked, seed=seed, likelihood=likelihood)
    if known is None:
        known = examination_given(ranker.predict(features), clicked, position)
    return Examined(ranker, known)


def fit_on_relevance(
    fit: Callable[..., Ranker],
    features: Floats,
    clicked: Labels,
    position: Positions,
    examined: Examined,
    *,
    seed: int,
    sample_weight: Weights | None = None,
) -> Ranker:
    """A ranker of any family, fitted on how likely each impression was relevant.

    That is regression EM's last step, from `examined`: each row without a click counts twice, as
    relevant and as not, by the posterior of the two.

    Args:
        fit: takes features, clicked, seed and sample_weight; the rest as fit_examined.

    Raises: InvalidInput, as `fit`.
    """
    here = examined.examination[_places(position)]
    prior = np.clip(examined.ranker.predict(features), _CERTAIN, 1.0 - _CERTAIN)
    relevant = np.where(clicked, 1.0, (1.0 - here) * prior / (1.0 - here * prior))
    weight = np.column_stack([relevant, 1.0 - relevant])
    if sample_weight is not None:
        weight *= sample_weight[:, None]
    # The two of a row stay together, so that rows stay in order of time.
    row, unlike = np.nonzero(weight)
    label = (1 - unlike).astype(np.uint8)
    return fit(features[row], label, seed=seed, sample_weight=weight[row, unlike])


def click_weights(clicked: Labels, position: Positions, examination: Weights) -> Weights:
    """1 / examination of the position for a click, at most 1 / EXAMINATION_MIN, else 1.

    The odds that a model learns are relevance / (1 - examination * relevance): the order is right
    among items that were shown in like positions, and only nearly so among others.

    Args: clicked: shape (n,), 0 or 1; position: shape (n,); examination: as of Examined.
    Source: Joachims et al., WSDM 2017, for a loss by row.
    """
    return np.where(clicked, 1.0 / examination[_places(position)], 1.0)


def serve_at_mean(ranker: Ranker, features: Floats, clicked: Labels) -> Ranker:
    """The ranker with one fixed examination for all: that which gives the click rate of the rows.

    The order is that of relevance, pctr that of a position as it is on average, in the graph too.

    Args: features: shape (n, d); clicked: shape (n,), 0 or 1, with a click.
    """
    fixed = float(clicked.mean() / ranker.predict(features).mean())
    if fixed >= 1.0:
        return ranker
    return Ranker(
        family=ranker.family,
        graph=scaled_graph(ranker.graph, fixed),
        predict=lambda rows: fixed * ranker.predict(rows),
        parameters={**ranker.parameters, "served_examination": fixed},
        shapley=ranker.shapley,
    )
