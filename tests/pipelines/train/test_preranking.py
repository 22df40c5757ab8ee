"""A ranker's linear stand-in."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.train.preranking import CONTROLS, fit_prerank
from rankstream.contracts.manifest import Utility
from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL, PARTIAL_NAMES

SEED = 3
VALUE = spec.NAMES.index("item_price")


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(SEED).normal(size=(n, spec.WIDTH)).astype(np.float32)


def test_the_stand_in_of_a_linear_ranker_has_its_weights() -> None:
    true = np.random.default_rng(1).normal(size=spec.WIDTH)
    others = [k for k in range(spec.WIDTH) if k not in {*PARTIAL, *CONTROLS}]
    true[others] = 0.0

    found = fit_prerank(lambda x: [(x @ true).astype(np.float32)], rows(20_000), seed=SEED)

    assert tuple(found) == PARTIAL_NAMES
    assert list(found.values()) == pytest.approx(true[list(PARTIAL)].tolist(), abs=0.01)


def test_what_differs_between_users_alone_is_not_put_down_to_their_items() -> None:
    features = rows(5_000)
    user, item = spec.NAMES.index("user_ctr"), spec.NAMES.index("item_ctr")
    features[:, item] += features[:, user]

    found = fit_prerank(lambda x: [x[:, user]], features, seed=SEED)

    assert max(map(abs, found.values())) < 0.01


def test_a_constant_column_has_no_weight() -> None:
    features = rows(500)
    features[:, spec.NAMES.index("item_cvr")] = 0.02

    found = fit_prerank(lambda x: [x[:, PARTIAL[0]]], features, seed=SEED)

    assert found["item_cvr"] == 0.0


def test_with_a_utility_the_stand_in_follows_it() -> None:
    features = rows(5_000)
    features[:, VALUE] = np.abs(features[:, VALUE]) + 1.0
    half = np.full(len(features), 0.5, np.float32)
    utility = Utility(click=0.0, purchase=1.0, value="item_price")

    found = fit_prerank(lambda x: [half, half, half], features, utility, seed=SEED)

    assert found["item_price"] == pytest.approx(0.5, abs=0.01)
    assert sorted(found.values())[-2] < 0.01


def test_no_column_is_both_a_control_and_a_candidates() -> None:
    assert not {*CONTROLS} & {*PARTIAL}
