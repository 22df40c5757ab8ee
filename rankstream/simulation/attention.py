"""What simulated users look at, click and buy, given a slate and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidInput
from rankstream.simulation.truth import Truth

Floats = npt.NDArray[np.float64]

# P(the user looks at position k), top first. Further down nothing is looked at.
# Source: eye-tracking figures of Joachims, Granka, Pan, Hembrooke and Gay, "Accurately Interpreting
# Clickthrough Data as Implicit Feedback", SIGIR 2005.
EXAMINATION: Final = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)


@dataclass(frozen=True)
class Buying:
    """How clicks turn into purchases.

    `p_purchase` is P(purchase | click); the purchase follows the click by an exponential time of
    mean `delay_ms_mean`; the price is drawn between `price_min` and `price_max`.
    """

    p_purchase: float = 0.1
    delay_ms_mean: float = 5_000.0
    price_min: float = 5.0
    price_max: float = 25.0


@dataclass(frozen=True)
class Purchase:
    """The item in slot `position` is bought `delay_ms` after its click, for `value`."""

    position: int
    delay_ms: int
    value: float


def examination(slots: int) -> Floats:
    """P(position is examined), shape (slots,).

    >>> examination(2).tolist()
    [0.68, 0.61]
    """
    out = np.zeros(slots)
    seen = min(slots, len(EXAMINATION))
    out[:seen] = EXAMINATION[:seen]
    return out


def click_probability(truth: Truth, user: str, slate: Sequence[str]) -> Floats:
    """P(click) of each slot, shape (len(slate),): examined and liked."""
    return examination(len(slate)) * truth.attraction(user, slate)


def expected_ctr(truth: Truth, user: str, slate: Sequence[str]) -> float:
    """Clicks per impression that the slate earns on average, in closed form.

    Raises: InvalidInput for an empty slate, which has no CTR.
    """
    if not slate:
        raise InvalidInput(
            "invalid_input: a slate of 0 items has no CTR. Nothing was computed."
            " Leave empty slates out."
        )
    return float(click_probability(truth, user, slate).mean())


def clicks(
    truth: Truth, user: str, slate: Sequence[str], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which slots the user clicks, shape (len(slate),): independent by slot."""
    return rng.random(len(slate)) < click_probability(truth, user, slate)


def purchases(
    clicked: npt.NDArray[np.bool_], rng: np.random.Generator, buying: Buying
) -> list[Purchase]:
    """What the user buys of the slots clicked, in slot order."""
    bought = np.flatnonzero(clicked)[rng.random(int(clicked.sum())) < buying.p_purchase]
    delay_ms = rng.exponential(buying.delay_ms_mean, len(bought))
    value = rng.uniform(buying.price_min, buying.price_max, len(bought))
    return [
        Purchase(int(position), round(delay), round(price, 2))
        for position, delay, price in zip(
            bought.tolist(), delay_ms.tolist(), value.tolist(), strict=True
        )
    ]
