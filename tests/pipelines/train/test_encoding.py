"""Pieces of a feature say where its value stands."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.train.encoding import Encoding, encoding_of


def pieces_of(encoding: Encoding, features: np.ndarray) -> np.ndarray:
    share = (features[:, encoding.feature] - encoding.low) * encoding.scale
    return np.asarray(np.clip(share, 0.0, 1.0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1_000), st.integers(1, 12))
def test_pieces_of_a_feature_sum_to_its_place_between_quantiles(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    features = np.exp(rng.normal(size=(300, 3))).astype(np.float32)

    encoding = encoding_of(features, pieces=pieces)

    asked = np.concatenate([features, 3 * features, -features])
    found = pieces_of(encoding, asked)
    for place in range(3):
        edges = np.quantile(features[:, place], np.linspace(0, 1, pieces + 1), method="nearest")
        expected = np.interp(asked[:, place], edges, np.arange(pieces + 1))
        held = np.flatnonzero(encoding.feature == place)
        if len(held) == pieces:  # no two quantiles were too near to each other
            assert np.allclose(found[:, held].sum(axis=1), expected, atol=1e-3)
        order = np.argsort(asked[:, place])
        assert np.all(np.diff(found[order][:, held].sum(axis=1)) >= -1e-4)


def test_a_constant_feature_has_no_piece_and_a_flag_has_one() -> None:
    features = np.zeros((100, 2), np.float32)
    features[50:, 1] = 1.0

    encoding = encoding_of(features, pieces=8)

    assert encoding.feature.tolist() == [1]
    assert (encoding.low.tolist(), encoding.scale.tolist()) == ([0.0], [1.0])
