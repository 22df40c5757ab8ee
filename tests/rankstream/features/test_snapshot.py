"""What the context of a user is worth, as of the time served."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.features import spec
from rankstream.features.rows import (
    CATEGORY_ROW,
    CONTEXT_ATTRIBUTES,
    CONTEXT_ROW,
    ITEM_ROW,
    USER_ROW,
    ContextAttribute,
    Rows,
    empty_rows,
)
from rankstream.features.snapshot import snapshot

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
