"""Order and sanity of scores."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.errors import DependencyUnavailable
from rankstream.ranking.scoring import check_finite, logistic, order


def test_probabilities_are_right_and_do_not_overflow() -> None:
    pctr = logistic(np.array([-1000.0, -1.0, 0.0, 2.0, 1000.0], np.float32))

    assert pctr == pytest.approx([0.0, 0.26894142, 0.5, 0.88079708, 1.0])


def test_best_comes_first_and_equal_ones_keep_their_order() -> None:
    assert order(np.array([1.0, 3.0, 1.0, 2.0], np.float32)).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_number_is_named(bad: float) -> None:
    with pytest.raises(DependencyUnavailable, match="model m1 gave 1 of 2 logits"):
        check_finite(np.array([0.0, bad], np.float32), "m1")
