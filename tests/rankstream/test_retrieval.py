"""Sources of candidates and their merge."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.ids import id64
from rankstream.retrieval import Found, exact, merge, popular, rows_of

NONE = np.empty(0, np.int64)


def found(*rows: int) -> Found:
    return Found(np.array(rows, np.int64), np.arange(len(rows), 0, -1).astype(np.float32))


def test_exact_search_gives_the_rows_of_largest_inner_product_best_first() -> None:
    vectors = np.array([[1, 0], [0, 1], [2, 0], [-1, 0]], np.float32)

    nearest = exact(vectors, np.array([1, 0], np.float32), 3, NONE)

    assert nearest.rows.tolist() == [2, 0, 1]
    assert nearest.similarity.tolist() == [2.0, 1.0, 0.0]


def test_excluded_rows_make_room_for_others() -> None:
    vectors = np.array([[3], [2], [1]], np.float32)

    nearest = exact(vectors, np.ones(1, np.float32), 2, np.array([0, 0]))

    assert nearest.rows.tolist() == [1, 2]


def test_equal_rows_come_in_the_order_of_the_table() -> None:
    assert exact(np.ones((4, 1), np.float32), np.ones(1, np.float32), 3, NONE).rows.tolist() == [
        0,
        1,
        2,
    ]


def test_popular_items_carry_no_similarity() -> None:
    top = popular(np.array([5, 9, 7], np.float32), 2, np.array([1]))

    assert top.rows.tolist() == [2, 0]
    assert top.similarity.tolist() == [0.0, 0.0]


def test_merge_lets_the_first_source_lead_and_drops_repeats_and_padding() -> None:
    merged, origin = merge([found(4, -1, 2), found(2, 9, 4, 1)], k=4)

    assert merged.rows.tolist() == [4, 2, 9, 1]
    assert origin.tolist() == [0, 0, 1, 1]


@given(
    st.lists(st.lists(st.integers(-1, 20), max_size=10), min_size=1, max_size=4),
    st.integers(1, 12),
)
def test_merge_equals_a_loop_over_the_sources(sources: list[list[int]], k: int) -> None:
    expected: list[int] = []
    for source in sources:
        expected += [row for row in dict.fromkeys(source) if row >= 0 and row not in expected]

    merged, _ = merge([found(*source) for source in sources], k)

    assert merged.rows.tolist() == expected[:k]


def test_ids_are_looked_up_in_any_order_and_unknown_ones_are_minus_one() -> None:
    hashes = np.array([id64(name) for name in ("a", "b", "c")], np.uint64)
    order = np.argsort(hashes).astype(np.int64)
    asked = np.array([id64("c"), id64("nobody"), id64("a")], np.uint64)

    assert rows_of(hashes[order], order, asked).tolist() == [2, -1, 0]
    assert rows_of(hashes[:0], order[:0], asked).tolist() == [-1, -1, -1]
