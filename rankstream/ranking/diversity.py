"""How alike candidates are, and what a slot loses by being like those above."""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from rankstream.contracts.policy import Diversity
from rankstream.ranking.facts import Facts, Floats

# Keeps the determinant of equal items above 0, so that they can still be shown one after another.
RIDGE: Final = 1e-3


class Similarity:
    """Of candidates: the same category, and closeness in attributes; in [0, 1], positive definite.

    A sum of positive definite kernels (equality, Laplace), so a determinantal process may use it.
    Unknown attributes are like nothing, not even one another.
    """

    def __init__(self, step: Diversity, facts: Facts, depth: int, *, times: float = 1.0) -> None:
        """Rows are multiplied by `times`."""
        category = facts.category[:depth]
        self._category = category.tolist()
        # A row per category, not per candidate: most rows are asked for more than once.
        same = np.arange(len(facts.categories))[:, None] == category
        self._same: Floats = same * (times * step.category)
        self._near = [
            (facts.attribute(likeness.attribute)[:depth] / likeness.scale, times * likeness.weight)
            for likeness in step.attributes
        ]

    def row(self, i: int) -> Floats:
        """Of candidate i to each of the first `depth`, shape (depth,); not to be written to."""
        out: Floats = self._same[self._category[i]]
        for scaled, weight in self._near:
            near = np.exp(-np.abs(scaled - scaled[i]))
            near[np.isnan(near)] = 0.0
            out = out + weight * near
        return out


class Novelty(Protocol):
    """`loss`, shape (depth,), is what each candidate's gain loses to the items taken so far."""

    loss: Floats

    def take(self, i: int) -> None:
        """Candidate i has its slot."""
        ...


class Mmr:
    """(1 - trade_off) x similarity to the most similar item above."""

    def __init__(self, step: Diversity, facts: Facts, depth: int) -> None:
        self._similarity = Similarity(step, facts, depth, times=1.0 - step.trade_off)
        self.loss: Floats = np.zeros(depth)

    def take(self, i: int) -> None:
        np.maximum(self.loss, self._similarity.row(i), out=self.loss)


class Dpp:
    """-(1 - trade_off) x log of what each candidate adds to the determinant of those above.

    One row of the Cholesky factor per item taken, O(slots x depth) each: Algorithm 1 of Chen, Zhang
    and Zhou (2018). Preferences stand outside: log det of diag(q) S diag(q) is the sum of 2 log q
    and log det S.
    """

    def __init__(self, step: Diversity, facts: Facts, depth: int, slots: int) -> None:
        self._similarity = Similarity(step, facts, depth, times=1.0 - RIDGE)
        self._weight = 1.0 - step.trade_off
        self._factor: Floats = np.zeros((slots, depth))
        self._taken = 0
        self._left: Floats = np.ones(depth)  # squared diagonal of the factor with one row more
        self.loss: Floats = np.zeros(depth)

    def take(self, i: int) -> None:
        above: npt.NDArray[np.float64] = self._factor[: self._taken]
        row = self._similarity.row(i) - above[:, i] @ above
        row[i] = self._left[i]
        row *= 1.0 / math.sqrt(self._left[i])
        self._factor[self._taken] = row
        self._taken += 1
        self._left -= row * row
        np.maximum(self._left, RIDGE, out=self._left)
        np.log(self._left, out=self.loss)
        self.loss *= -self._weight


def novelty(step: Diversity, facts: Facts, slots: int) -> Novelty:
    """What a policy's method takes off before any slot is filled; `facts` are best first."""
    depth = min(step.depth, len(facts.preference))
    if step.method == "mmr":
        return Mmr(step, facts, depth)
    return Dpp(step, facts, depth, slots)
