"""Feature vectors: what the context of a user is worth when, and columns made without the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankstream.contracts.columns import Kind
from rankstream.features import spec
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ATTRIBUTES,
    CONTEXT_ROW,
    ITEM_ROW,
    RECENT,
    USER_ROW,
    ContextAttribute,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import PARTIAL, partial_vectors, snapshot

STATED_MS = 1_700_000_000_000


def features_of(user: Rows, *as_of_ms: int) -> dict[str, list[float]]:
    """Values of every feature by name, one for each time."""
    n = len(as_of_ms)
    vectors = snapshot(
        np.repeat(user, n),
        empty_rows(n, ITEM_ROW),
        empty_rows(n, CATEGORY_ROW),
        empty_rows(2 * n, CONTEXT_ROW).reshape(n, 2),
        np.array(as_of_ms),
    )
    return dict(zip(spec.NAMES, vectors.T.tolist(), strict=True))


@pytest.mark.parametrize("known", CONTEXT_ATTRIBUTES, ids=lambda known: known.name)
def test_context_holds_to_the_end_of_its_time_and_not_a_millisecond_longer(
    known: ContextAttribute,
) -> None:
    user = empty_rows(1, USER_ROW)
    user["context"][0, CONTEXT_ATTRIBUTES.index(known)] = (STATED_MS, 0.5)
    end_ms = STATED_MS + known.ttl_ms

    found = features_of(user, STATED_MS, end_ms, end_ms + 1)

    assert found[f"context_{known.name}"] == [0.5, 0.5, known.unknown]
    for other in {*CONTEXT_ATTRIBUTES} - {known}:
        assert found[f"context_{other.name}"] == [other.unknown] * 3


def test_context_stated_by_a_clock_that_is_ahead_holds_at_once() -> None:
    user = empty_rows(1, USER_ROW)
    user["context"][0, 0] = (STATED_MS + 60_000, 21.5)

    assert features_of(user, STATED_MS)["context_temperature_c"] == [21.5]


def test_what_was_never_stated_is_unknown_at_any_time() -> None:
    found = features_of(empty_rows(1, USER_ROW), 0, 1, STATED_MS)

    for known in CONTEXT_ATTRIBUTES:
        assert found[f"context_{known.name}"] == [known.unknown] * 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from([int(Kind.RATE), int(Kind.CLICK), int(Kind.VIEW)]),
            st.sampled_from([0.5, 3.0, 4.5]),
        ),
        max_size=RECENT,
    )
)
def test_last_ratings_are_means_of_the_newest_among_all_actions(
    actions: list[tuple[int, float]],
) -> None:
    user = empty_rows(1, USER_ROW)
    for place, (kind, value) in enumerate(actions):
        user["recent"][0, place] = (7, 0, STATED_MS - place, value, kind)

    found = features_of(user, STATED_MS, STATED_MS + 1)

    rated = [value for kind, value in actions if kind == Kind.RATE]
    for last in spec.LAST_RATINGS:
        mean = (sum(rated[:last]) + 3.5 * 5.0) / (len(rated[:last]) + 5.0)
        assert found[f"user_last_{last}_mean_rating"] == pytest.approx([mean] * 2, abs=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 40))
def test_partial_vectors_are_columns_of_the_whole_ones_bit_by_bit(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    user, items, categories = (
        counted(rng, empty_rows(size, dtype))
        for size, dtype in ((1, USER_ROW), (7, ITEM_ROW), (3, CATEGORY_ROW))
    )
    items["attributes"] = rng.choice([np.nan, 5.0], items["attributes"].shape)
    names = rng.integers(1, 4, 3).astype(np.uint64)
    user["tastes"]["category"] = rng.integers(0, 4, 32)
    user["tastes"]["impressions"] = rng.integers(0, 99, 32)
    of: dict[str, Any] = {
        "item_of": rng.integers(0, 7, n),
        "category_of": rng.integers(0, 3, n),
        "category_hash": names,
    }
    as_of = np.array([STATED_MS])

    partial = partial_vectors(user, items, categories, as_of, **of)
    whole = snapshot(user, items, categories, empty_rows(2, CONTEXT_ROW)[None], as_of, **of)

    assert partial.tobytes() == np.ascontiguousarray(whole[:, PARTIAL]).tobytes()


def counted(rng: np.random.Generator, rows: Rows) -> Rows:
    """Rows with counters."""
    rows["totals"] = rng.integers(0, 1_000, rows["totals"].shape)
    rows["last_ms"] = rng.choice([0, STATED_MS - 5_000], len(rows))
    return rows
