"""Thompson sampling of cold items, and the probability of what it chose, by simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Thompson
from rankstream.ranking.facts import Facts, Floats

_RATE_MIN: Final = 1e-9
# Of a category's own click rate: what all categories have, as if seen so often.
_CATEGORY_STRENGTH: Final = 100.0
_BLOCK: Final = 65_536

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Cold:
    """c cold candidates: which they are, the Beta posterior of their click rates, all shape (c,).

    A rate is worth log(rate / (1 - rate)) + offset, or, if `scale` is given, rate x scale + offset.
    """

    places: Places
    a: Floats
    b: Floats
    offset: Floats
    scale: Floats | None

    def preferences(self, draws: int, rng: np.random.Generator) -> Floats:
        """Preferences of drawn click rates, shape (draws, c)."""
        rate = rng.beta(self.a, self.b, size=(draws, len(self.places)))
        if self.scale is not None:
            return rate * self.scale + self.offset
        np.clip(rate, _RATE_MIN, 1.0 - _RATE_MIN, out=rate)
        worth: Floats = np.log(rate / (1.0 - rate)) + self.offset
        return worth


def cold_items(step: Thompson, facts: Facts, preference: Floats, depth: int) -> Cold:
    """The cold ones among the first `depth` candidates; `facts` and preferences are best first.

    Args:
        preference: after rules and freshness, shape (m,): what those added is added to drawn
            preferences, too.
    """
    cold = facts.impressions[:depth] < step.impressions_below
    places = np.flatnonzero(cold)[: step.candidates_max]
    shown, prior = facts.impressions[places], _prior(facts)[facts.category[places]]
    clicks = np.minimum(facts.clicks[places], shown)
    model = facts.preference[places].astype(np.float64)
    added, scale = preference[places] - model, None
    if not facts.by_logit:
        scale = model / np.maximum(facts.pctr[places].astype(np.float64), _RATE_MIN)
    a, b = step.strength * prior + clicks, step.strength * (1.0 - prior) + shown - clicks
    return Cold(places, a, b, added, scale)


def _prior(facts: Facts) -> Floats:
    """Smoothed click rate of each category, shape (c,), in (0, 1)."""
    clicks = np.minimum(facts.category_clicks, facts.category_impressions).astype(np.float64)
    shown = facts.category_impressions.astype(np.float64)
    overall = (clicks.sum() + 1.0) / (shown.sum() + 10.0)
    rate: Floats = (clicks + _CATEGORY_STRENGTH * overall) / (shown + _CATEGORY_STRENGTH)
    return np.clip(rate, 1e-6, 1.0 - 1e-6)


@dataclass(frozen=True, eq=False)
class Contest:
    """What stood against each other at each of n slots, given the slots above.

    chosen: shape (n,), the cold candidate in the slot; -1: the best of the others; -2: another one
        of them, which can only have been explored.
    shift: shape (n, c), added to trade_off x preference of a cold candidate; -inf: not allowed.
    best: shape (n,), gain of the best candidate that is not cold; -inf: there is none.
    sampled: shape (n,), whether the slot went to the best one of the drawn gains.
    """

    cold: Cold
    trade_off: float
    chosen: npt.NDArray[np.int64]
    shift: Floats
    best: Floats
    sampled: npt.NDArray[np.bool_]


def simulated(contest: Contest, draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """P(the slot's candidate is the best one | slots above), and its standard error, (n,) each.

    A slot that was sampled is estimated by (hits + 1) / (draws + 1): the draw that was served
    counts as well. So it is never 0, and its reciprocal has expectation
    (1 - (1 - p)^(draws + 1)) / p, almost 1 / p. An explored slot is estimated by hits / draws. All
    slots share the draws: errors of different slots are not independent.
    """
    n = len(contest.chosen)
    hits = np.zeros(n)
    step = max(1, _BLOCK // max(1, len(contest.cold.places)))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        gains = contest.trade_off * contest.cold.preferences(rows, rng)
        for slot in range(n):
            hits[slot] += _wins(gains + contest.shift[slot], contest, slot)
    p = (hits + contest.sampled) / (draws + contest.sampled)
    return p, np.sqrt(p * (1.0 - p) / draws)


def _wins(gains: Floats, contest: Contest, slot: int) -> int:
    chosen = int(contest.chosen[slot])
    if chosen == -2:
        return 0
    if chosen == -1:
        return int(np.count_nonzero(gains.max(axis=1) < contest.best[slot]))
    top = gains.argmax(axis=1)
    return int(np.count_nonzero((top == chosen) & (gains[:, chosen] >= contest.best[slot])))
