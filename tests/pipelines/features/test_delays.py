"""How much it means that somebody has not bought so far."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.features.delays import PURCHASES_MIN, purchases_so_far

WINDOW_MS = 20


def slowly(
    delay_ms: list[int], age_ms: list[int], closed: list[int]
) -> tuple[list[int], list[float]]:
    """One impression after the other; `closed`: the delays of those whose window has closed."""
    purchased, come = [], []
    for delay, age in zip(delay_ms, age_ms, strict=True):
        if age >= WINDOW_MS:
            share = 1.0
        elif len(closed) < PURCHASES_MIN:
            share = 0.0
        else:
            share = sum(known <= age for known in closed) / (len(closed) + 1)
        come.append(share)
        if share == 0.0:
            purchased.append(-1)
        elif delay >= 0:
            purchased.append(1)
        else:
            purchased.append(0 if age >= WINDOW_MS else -1)
    return purchased, come


@given(
    st.lists(st.tuples(st.integers(-1, WINDOW_MS), st.integers(0, 2 * WINDOW_MS))),
    st.lists(st.integers(0, WINDOW_MS), max_size=2 * PURCHASES_MIN),
)
def test_it_is_what_a_count_says(rows: list[tuple[int, int]], more: list[int]) -> None:
    rows = [(min(delay, age), age) for delay, age in rows] + [(delay, WINDOW_MS) for delay in more]
    delay_ms, age_ms = [delay for delay, _ in rows], [age for _, age in rows]
    closed = [delay for delay, age in rows if age >= WINDOW_MS and delay >= 0]

    purchased, come = purchases_so_far(
        np.array(delay_ms, np.int64), np.array(age_ms, np.int64), WINDOW_MS
    )

    expected = slowly(delay_ms, age_ms, closed)
    assert purchased.tolist() == expected[0]
    assert come.tolist() == np.array(expected[1], np.float32).tolist()
    # Only labels that are final are counted as such, however quick the purchases were.
    assert (come == 1.0).tolist() == [age >= WINDOW_MS for age in age_ms]


def test_purchases_still_to_come_are_counted_right() -> None:
    """Seen purchases over the share that comes by now are all purchases, whatever the delays."""
    rng = np.random.default_rng(1)
    n, window_ms = 200_000, 86_400_000
    age_ms = rng.integers(0, 3 * window_ms, n)
    delay_ms = np.minimum(rng.exponential(window_ms / 6, n), window_ms).astype(np.int64)
    bought = rng.random(n) < 0.1
    seen = np.where(bought & (delay_ms <= age_ms), delay_ms, -1)

    purchased, come = purchases_so_far(seen, age_ms, window_ms)

    is_open = (age_ms < window_ms) & (come > 0)
    expected = float((purchased[is_open] == 1).sum() / come[is_open].sum())
    assert abs(expected - 0.1) < 0.005
    assert float((purchased[is_open] == 1).mean()) < 0.09
