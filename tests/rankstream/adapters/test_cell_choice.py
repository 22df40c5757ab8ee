"""How many of the best rows each cell is expected to hold, beside SciPy's normal distribution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from rankstream.adapters.cell_choice import expected_among

_SPAN = 4.0  # of all scores that are drawn, 3 deviations on either side


def _slow(
    centre: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
    rows: npt.NDArray[np.int64],
    k: int,
) -> npt.NDArray[np.float64]:
    """By the threshold above which k are expected, found to the last bit."""

    def above(threshold: float) -> npt.NDArray[np.float64]:
        share: npt.NDArray[np.float64] = rows * norm.sf(threshold, centre, deviation)
        return share

    return above(brentq(lambda threshold: above(threshold).sum() - k, -9.0, 9.0))


_CELLS = st.lists(
    st.tuples(st.floats(-1.0, 1.0), st.floats(0.1, 0.3), st.integers(0, 500)),
    min_size=1,
    max_size=60,
).filter(lambda cells: any(inside for _, _, inside in cells))


@given(_CELLS, st.floats(0.0, 1.0))
def test_as_many_are_expected_as_normal_scores_have(
    cells: list[tuple[float, float, int]], share: float
) -> None:
    centre, deviation, rows = (np.array(column) for column in zip(*cells, strict=True))
    k = max(1, round(share * rows.sum()))

    expected = expected_among(centre.astype(np.float32), (deviation**2).astype(np.float32), rows, k)

    if k < 0.99 * rows.sum():  # above that the threshold is below what scores span
        # Scores are told apart to 1/4096 of what they span, and a density is .4 / .1 at most.
        tolerance = _SPAN / 4_096 * 4 * rows + 1e-3
        assert (np.abs(expected - _slow(centre, deviation, rows, k)) <= tolerance).all()
    assert (expected >= 0).all()
    assert (expected <= rows).all()
    assert not expected[rows == 0].any()
