"""Where slices are cut, and which are too small to judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluate.impressions import Impressions, Ints
from pipelines.evaluate.slices import (
    earlier_impressions,
    item_popularity,
    slices_of,
    user_activity,
)
from rankstream.errors import InvalidInput
from tests.pipelines.evaluate.candidates import clustered


def naive_popularity(training: Ints) -> list[str]:
    """Walk down the levels of popularity until a share is full."""
    name_of, held = {}, 0
    for level in sorted(set(training.tolist()), reverse=True):
        share = held / training.sum()
        name_of[level] = "head" if share < 0.5 else "torso" if share < 0.8 else "tail"
        held += level * int((training == level).sum())
    return [name_of[level] for level in training.tolist()]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40).filter(any))
def test_head_torso_and_tail_are_cut_by_their_share_of_training(counts: list[int]) -> None:
    training = np.array(counts)

    found = item_popularity(np.arange(len(training)), training)

    assert found.tolist() == naive_popularity(training)


def test_the_item_that_crosses_half_is_head_and_what_training_never_showed_is_tail() -> None:
    training = np.array([40, 30, 20, 10, 0])

    found = item_popularity(np.array([4, 0, 1, 2, 3]), training)

    assert found.tolist() == ["tail", "head", "head", "torso", "tail"]


def test_users_are_new_regular_or_power_by_their_training_impressions() -> None:
    earlier = earlier_impressions(np.repeat([0, 1, 2, 3], [9, 10, 99, 100]), np.arange(5))

    assert earlier.tolist() == [9, 10, 99, 100, 0]
    assert user_activity(earlier).tolist() == ["new", "regular", "regular", "power", "new"]


def test_items_outside_the_catalogue_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"2 test rows of items up to 7 \(limit 0 to 1\)"):
        item_popularity(np.array([0, 7]), np.array([3, 1]))
    with pytest.raises(InvalidInput, match=r"0 training impressions \(at least 1\)"):
        item_popularity(np.array([0]), np.array([0]))


def test_a_slice_names_what_it_lacks_and_slices_part_the_rows() -> None:
    clicked, user, _ = clustered(np.random.default_rng(1), users=300)
    impressions = Impressions.of(clicked, user)
    column = np.where(user < 3, "few users", "rest")

    large, small = slices_of(impressions, {"of": column})

    assert (large.value, large.too_small) == ("rest", "")
    assert small.value == "few users"
    assert "3 users (at least 50)" in small.too_small
    assert f"{small.n} impressions (at least 500)" in small.too_small
    assert large.n + small.n == len(impressions)
    assert large.clicks + small.clicks == clicked.sum()


def test_slice_columns_of_another_length_or_of_too_many_values_are_refused() -> None:
    impressions = Impressions.of([0, 1] * 30, np.arange(60))

    with pytest.raises(InvalidInput, match=r"slice column c has shape \(1,\) beside 60"):
        slices_of(impressions, {"c": ["x"]})
    with pytest.raises(InvalidInput, match=r"slice column c has 60 values \(limit 50\)"):
        slices_of(impressions, {"c": np.arange(60)})
