"""What cannot be evaluated is refused by name, with the value, the limit and the remedy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipelines.evaluate.impressions import Impressions, probabilities
from pipelines.evaluate.metrics import ranker_metrics
from rankstream.errors import InvalidInput


@pytest.mark.parametrize(
    ("clicked", "message"),
    [
        ([], r"labels have shape \(0,\) \(one dimension, at least 1\)\. Nothing was evaluated"),
        ([0.0, float("nan")], r"label of row 1 is nan and 1 rows are like it \(0 or 1\)"),
        ([0, 2, 2], r"label of row 1 is 2 and 2 rows are like it"),
        ([1, 1, 1], r"all 3 labels are 1 \(both 0 and 1 are needed\).*longer test period"),
        ([[0, 1]], r"labels have shape \(1, 2\)"),
    ],
)
def test_labels_that_carry_no_metric_are_refused(clicked: npt.ArrayLike, message: str) -> None:
    user = np.zeros(len(np.asarray(clicked)), np.int64)

    with pytest.raises(InvalidInput, match=message):
        Impressions.of(clicked, user)


@pytest.mark.parametrize(
    ("pctr", "message"),
    [
        ([0.1], r"pctr has shape \(1,\) beside 2 labels \(the same length\)"),
        ([0.1, float("nan")], r"pctr of row 1 is nan and 1 rows are like it \(limit 0 to 1\)"),
        ([-0.5, 1.5], r"pctr of row 0 is -0\.5 and 2 rows.*not logits"),
    ],
)
def test_predictions_that_are_no_probabilities_are_refused(
    pctr: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        probabilities(pctr, 2)
    with pytest.raises(InvalidInput, match=message):
        ranker_metrics([0, 1], pctr)


def test_a_row_without_a_user_and_a_query_of_two_users_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"column user has shape \(1,\) beside 2 labels"):
        Impressions.of([0, 1], ["u1"])
    with pytest.raises(InvalidInput, match="query of row 0 has rows of two users"):
        Impressions.of([0, 1], ["u1", "u2"], ["q", "q"])


def test_ids_of_any_type_become_codes_and_a_part_keeps_the_universe_of_users() -> None:
    impressions = Impressions.of([0, 1, 1], ["b", "a", "b"], [7, 9, 7])

    part = impressions.take(np.array([1]))

    assert impressions.user.tolist() == [1, 0, 1]
    assert impressions.users == part.users == 2
    assert part.user.tolist() == [0]
    assert len(part) == 1
