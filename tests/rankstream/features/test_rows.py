"""Counters against a list of what was added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.features.counters import CounterTable
from rankstream.features.rows import CATEGORY_ROW, TOTALS, WINDOWS, Rows, empty_rows, windowed

_ADDITIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 9 * 86_400_000), st.integers(0, 3)), max_size=30
)


def _rows(table: CounterTable) -> Rows:
    rows = empty_rows(len(table), CATEGORY_ROW)
    table.fill(rows, range(len(table)))
    return rows


@given(_ADDITIONS, st.integers(0, 2 * 86_400_000), st.integers(1, 30))
def test_windowed_counts_equal_counting_the_list(
    additions: list[tuple[int, int, int]], later_ms: int, batch: int
) -> None:
    as_of_ms = max((time_ms for _, time_ms, _ in additions), default=1) + later_ms
    table = CounterTable()
    for key in "abc":
        table.row(key)

    for start in range(0, len(additions), batch):
        part = additions[start : start + batch]
        amounts = np.zeros((len(part), len(TOTALS)), np.int64)
        amounts[np.arange(len(part)), [counter for _, _, counter in part]] = 1
        rows, times = np.array([a[0] for a in part]), np.array([a[1] for a in part])
        table.add(rows, times, amounts)

    expected = np.zeros((3, len(WINDOWS), 4), np.int64)
    for row, time_ms, counter in additions:
        for w, window in enumerate(WINDOWS):
            age = as_of_ms // window.bucket_ms - time_ms // window.bucket_ms
            expected[row, w, counter] += age < window.buckets
    np.testing.assert_array_equal(windowed(_rows(table), np.array([as_of_ms])), expected)
    totals = [sum(r == row for r, _, _ in additions) for row in range(3)]
    assert _rows(table)["totals"].sum(axis=1).tolist() == totals


def test_rows_that_are_not_touched_stay_as_they_are() -> None:
    table = CounterTable()
    keys = [table.row(key) for key in "abcd"]
    table.add(np.array(keys), np.full(4, 10**12), np.ones((4, len(TOTALS)), np.int64))
    untouched = _rows(table)[[0, 1, 3]].tobytes()

    table.add(np.array([2]), np.array([10**12 + 1]), np.ones((1, len(TOTALS)), np.int64))

    assert _rows(table)[[0, 1, 3]].tobytes() == untouched


def test_the_row_of_a_forgotten_key_is_empty_when_another_gets_it() -> None:
    table = CounterTable()
    row = table.row("a")
    table.add(np.array([row]), np.array([10**12]), np.ones((1, len(TOTALS)), np.int64))

    table.forget(["a"])

    assert table.row("b") == row
    assert _rows(table).tobytes() == _rows(_with("b")).tobytes()


def _with(key: str) -> CounterTable:
    table = CounterTable()
    table.row(key)
    return table
