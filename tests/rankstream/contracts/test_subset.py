"""Subsets of rows against sets of Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.subset import Subset, packed, set_bit, whole

SIZES = st.integers(1, 300)


@st.composite
def subsets(draw: st.DrawFn) -> tuple[int, set[int], Subset]:
    """Size, rows, and the subset of them, made from bits or from a list."""
    size = draw(SIZES)
    rows = draw(st.sets(st.integers(0, size - 1)))
    flags = np.zeros(size, bool)
    flags[list(rows)] = True
    if draw(st.booleans()):
        return size, rows, Subset(size, words=packed(flags))
    return size, rows, Subset(size, rows=np.flatnonzero(flags))


@given(subsets())
def test_bits_and_lists_say_the_same(drawn: tuple[int, set[int], Subset]) -> None:
    size, rows, subset = drawn

    assert subset.count == len(rows)
    assert subset.rows.tolist() == sorted(rows)
    again = Subset(size, words=subset.words)
    assert (again.count, again.rows.tolist()) == (len(rows), sorted(rows))


@given(subsets(), st.data())
def test_rows_are_looked_up_and_counted_by_range(
    drawn: tuple[int, set[int], Subset], data: st.DataObject
) -> None:
    size, rows, subset = drawn
    asked = data.draw(st.lists(st.integers(0, size - 1)))
    bounds = sorted(data.draw(st.lists(st.integers(0, size), min_size=2)))

    assert subset.holds(np.array(asked, np.int64)).tolist() == [row in rows for row in asked]
    assert subset.counts(np.array(bounds)).tolist() == [
        len(rows & set(range(start, end))) for start, end in pairwise(bounds)
    ]


@given(subsets(), st.data())
def test_what_is_left_out_is_gone_and_nothing_else(
    drawn: tuple[int, set[int], Subset], data: st.DataObject
) -> None:
    size, rows, subset = drawn
    out = data.draw(st.lists(st.integers(0, size - 1)))

    left = subset.without(np.array(out, np.int64))

    assert left.rows.tolist() == sorted(rows - set(out))
    assert subset.rows.tolist() == sorted(rows)


@given(SIZES, st.data())
def test_a_bit_is_changed_in_place(size: int, data: st.DataObject) -> None:
    changes = data.draw(st.lists(st.tuples(st.integers(0, size - 1), st.booleans())))
    words, rows = whole(size).words, set(range(size))
    for row, value in changes:
        set_bit(words, row, value)
        (rows.add if value else rows.discard)(row)

    assert Subset(size, words=words).rows.tolist() == sorted(rows)
