"""The true lift and its standard error are those of repeated sampling."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.errors import InvalidInput
from rankstream.simulation.lift import true_lift


def test_standard_error_is_the_spread_over_samples_of_users() -> None:
    rng = np.random.default_rng(8)
    lifts, errors = [], []

    for _ in range(400):
        taste = np.repeat(rng.uniform(0.1, 0.3, 60), 5)
        effect = np.repeat(rng.normal(1.1, 0.2, 60), 5)
        unit = [f"u{k}" for k in np.repeat(np.arange(60), 5)]
        found = true_lift(taste, taste * effect, unit)
        lifts.append(found.lift)
        errors.append(found.standard_error)

    assert np.mean(lifts) == pytest.approx(0.1, abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(lifts), rel=0.15)


def test_equal_slates_have_no_lift_and_no_error() -> None:
    ctr = np.array([0.2, 0.4, 0.1])

    found = true_lift(ctr, ctr, ["a", "b", "c"])

    assert (found.lift, found.standard_error, found.units) == (0.0, 0.0, 3)


@pytest.mark.parametrize(
    ("control", "treatment", "unit", "reason"),
    [
        ([0.1], [0.1, 0.2], ["a"], "Pair them"),
        ([0.1, 0.1], [0.1, 0.2], ["a", "a"], "1 units"),
        ([], [], [], "0 units"),
        ([0.0, 0.0], [0.1, 0.2], ["a", "b"], "earn 0 clicks"),
    ],
)
def test_what_has_no_lift_is_refused(
    control: list[float], treatment: list[float], unit: list[str], reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        true_lift(np.array(control), np.array(treatment), unit)
