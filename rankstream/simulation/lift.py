"""The true lift of one variant over another, from slates that both made for the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidInput

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrueLift:
    """Relative lift of the expected CTR, `treatment / control - 1`.

    `standard_error` is that of sampling users, not of clicks: expected clicks have no noise.
    """

    lift: float
    standard_error: float
    control: float
    treatment: float
    units: int


def true_lift(control: Floats, treatment: Floats, unit: Sequence[str]) -> TrueLift:
    """Estimate the lift from paired previews.

    Args:
        control: shape (n,), expected CTR of the control's slate for request i.
        treatment: shape (n,), expected CTR of the treatment's slate for the same request.
        unit: shape (n,), whose request it was; requests of one unit are not independent.

    Raises: InvalidInput: fewer than two units, different lengths, or a control that earns nothing.

    Source: delta method for a ratio of means over clusters (Deng, Knoblich and Lu 2018).
    """
    if not len(control) == len(treatment) == len(unit):
        raise InvalidInput(
            f"invalid_input: {len(control)} control, {len(treatment)} treatment slates and"
            f" {len(unit)} units. Nothing was computed. Pair them."
        )
    _, code = np.unique(np.asarray(unit, dtype=np.str_), return_inverse=True)
    units = int(code.max()) + 1 if len(code) else 0
    if units < 2 or not float(np.sum(control)) > 0.0:
        raise InvalidInput(
            f"invalid_input: {units} units (at least 2) whose control slates earn"
            f" {float(np.sum(control)):g} clicks (more than 0). Nothing was computed."
            " Sample more requests."
        )
    ratio = float(np.sum(treatment) / np.sum(control))
    residual = np.bincount(code, treatment - ratio * control, units)
    earned = np.bincount(code, control, units)
    variance = residual.var(ddof=1) / (units * earned.mean() ** 2)
    return TrueLift(
        lift=ratio - 1.0,
        standard_error=float(np.sqrt(variance)),
        control=float(np.mean(control)),
        treatment=float(np.mean(treatment)),
        units=units,
    )
