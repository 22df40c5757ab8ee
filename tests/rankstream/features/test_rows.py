"""Rings of event-time buckets against a list of what was added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.features.rows import CATEGORY_ROW, WINDOWS, add, empty_rows, windowed

_ADDITIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 9 * 86_400_000), st.integers(0, 3)), max_size=30
)


@given(_ADDITIONS, st.integers(0, 2 * 86_400_000), st.integers(1, 30))
def test_windowed_counts_equal_counting_the_list(
    additions: list[tuple[int, int, int]], later_ms: int, batch: int
) -> None:
    as_of_ms = max((time_ms for _, time_ms, _ in additions), default=1) + later_ms
    rows = empty_rows(3, CATEGORY_ROW)

    for start in range(0, len(additions), batch):
        part = additions[start : start + batch]
        counts = np.zeros((len(part), 4), np.int32)
        counts[np.arange(len(part)), [counter for _, _, counter in part]] = 1
        index, times = np.array([a[0] for a in part]), np.array([a[1] for a in part])
        add(rows, index, times, counts, np.zeros(len(part), np.int64))

    expected = np.zeros((3, len(WINDOWS), 4), np.int64)
    for row, time_ms, counter in additions:
        for w, window in enumerate(WINDOWS):
            age = as_of_ms // window.bucket_ms - time_ms // window.bucket_ms
            expected[row, w, counter] += age < window.buckets
    np.testing.assert_array_equal(windowed(rows, np.array([as_of_ms])), expected)


def test_rows_that_are_not_touched_stay_as_they_are() -> None:
    rows = empty_rows(4, CATEGORY_ROW)
    untouched = rows[[0, 1, 3]].tobytes()

    add(rows, np.array([2]), np.array([10**12]), np.ones((1, 4), np.int32), np.array([5]))

    assert rows[[0, 1, 3]].tobytes() == untouched
