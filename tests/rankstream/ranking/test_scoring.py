"""Order and sanity of scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankstream.contracts.manifest import Utility
from rankstream.errors import DependencyUnavailable
from rankstream.ranking.scoring import check_finite, expected_utility, logistic, order


def test_probabilities_are_right_and_do_not_overflow() -> None:
    pctr = logistic(np.array([-1000.0, -1.0, 0.0, 2.0, 1000.0], np.float32))

    assert pctr == pytest.approx([0.0, 0.26894142, 0.5, 0.88079708, 1.0])


def test_best_comes_first_and_equal_ones_keep_their_order() -> None:
    assert order(np.array([1.0, 3.0, 1.0, 2.0], np.float32)).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_number_is_named(bad: float) -> None:
    with pytest.raises(DependencyUnavailable, match="model m1 gave 1 of 2 scores"):
        check_finite(np.array([0.0, bad], np.float32), "m1")


@given(
    hnp.arrays(np.float32, 5, elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.float32, 5, elements=st.floats(-1, 100, width=32)),
)
def test_a_utility_is_the_sum_of_what_each_outcome_is_worth(
    p: npt.NDArray[np.float32], value: npt.NDArray[np.float32]
) -> None:
    weights = Utility(click=0.5, purchase=2.0, value="price", value_default=7.0)

    found = expected_utility(weights, p, p[::-1], value)

    expected = [
        0.5 * click + 2.0 * buy * (worth if worth > 0 else 7.0)
        for click, buy, worth in zip(p.tolist(), p[::-1].tolist(), value.tolist(), strict=True)
    ]
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
