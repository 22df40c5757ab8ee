"""Sources of candidates and their merge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours, in_order
from rankstream.contracts.subset import Subset
from rankstream.retrieval import (
    LIST_MIN,
    Found,
    Listed,
    blend,
    blend_with_neighbours,
    exact,
    largest,
    popular,
    rows_of,
    similar,
)

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


def test_popular_items_have_the_scores_of_their_ranking() -> None:
    ranked = Found(np.array([1, 2, 0]), np.array([9, 5, 4], np.float32))
    top = popular(ranked, 2, np.array([1]))

    assert top.rows.tolist() == [2, 0]
    assert top.similarity.tolist() == [5.0, 4.0]


@given(
    st.permutations(range(40)),
    st.integers(1, 45),
    st.lists(st.integers(0, 39)),
    st.none() | st.sets(st.integers(0, 39)),
)
def test_popular_items_are_the_first_that_may_come_back(
    order: list[int], k: int, excluded: list[int], within: set[int] | None
) -> None:
    allowed = set(range(40)) if within is None else within
    subset = None if within is None else Subset(40, rows=np.array(sorted(within), np.int64))

    scores = -np.arange(len(order), dtype=np.float32)
    top = popular(Found(np.array(order), scores), k, np.array(excluded, np.int64), subset)

    assert top.rows.tolist() == [row for row in order if row in allowed and row not in excluded][:k]


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.integers(1, 35),
    st.lists(st.integers(0, 29), max_size=5),
    st.none() | st.sets(st.integers(0, 29)),
)
def test_exact_search_equals_a_sort(
    values: list[int], k: int, excluded: list[int], within: set[int] | None
) -> None:
    m = len(values)
    excluded = [row for row in excluded if row < m]
    allowed = set(range(m)) if within is None else {row for row in within if row < m}
    subset = None if within is None else Subset(m, rows=np.array(sorted(allowed), np.int64))

    nearest = exact(
        np.array(values, np.float32)[:, None],
        np.ones(1, np.float32),
        k,
        np.array(excluded, np.int64),
        subset,
    )

    left = [row for row in allowed if row not in excluded]
    assert nearest.rows.tolist() == sorted(left, key=lambda row: (-values[row], row))[:k]


def test_ids_are_looked_up_in_any_order_and_unknown_ones_are_minus_one() -> None:
    hashes = np.array([id64(name) for name in ("a", "b", "c")], np.uint64)
    order = np.argsort(hashes).astype(np.int64)
    asked = np.array([id64("c"), id64("nobody"), id64("a")], np.uint64)

    assert rows_of(hashes[order], order, asked).tolist() == [2, -1, 0]
    assert rows_of(hashes[:0], order[:0], asked).tolist() == [-1, -1, -1]


def some_lists(seed: int, *, items: int = 12, k: int = 4, share: float = 1.0) -> Neighbours:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(items)[:k] for _ in range(items)]).astype(np.int32)
    weight = rng.uniform(0.1, 1.0, rows.shape).astype(np.float32)
    absent = rng.random(rows.shape) < 0.3
    rows[absent], weight[absent] = -1, 0.0
    return Neighbours("lists", rows, weight, last=3, fading=0.5, share=share)


def named_by_a_loop(table: Neighbours, history: list[int], excluded: list[int]) -> dict[int, float]:
    known = [row for row in dict.fromkeys(history) if row >= 0][: table.last]
    total: dict[int, float] = {}
    for place, row in enumerate(known):
        for other, weight in zip(table.rows[row].tolist(), table.weight[row].tolist(), strict=True):
            if other >= 0 and other not in excluded:
                total[other] = total.get(other, 0.0) + weight * table.fading**place
    return total


def best(total: dict[int, float], k: int) -> list[int]:
    return sorted(total, key=lambda row: (-total[row], row))[:k]


@given(
    st.integers(0, 50),
    st.lists(st.integers(-1, 11), max_size=8),
    st.lists(st.integers(0, 11), max_size=6),
    st.none() | st.sets(st.integers(0, 11)),
    st.integers(1, 12),
)
def test_neighbours_equal_a_loop_over_the_lists_of_the_last_different_items(
    seed: int, history: list[int], excluded: list[int], within: set[int] | None, k: int
) -> None:
    table = some_lists(seed)
    subset = None if within is None else Subset(12, rows=np.array(sorted(within), np.int64))

    named = similar(table, np.array(history, np.int64), k, np.array(excluded, np.int64), subset)

    out = [] if within is None else [row for row in range(12) if row not in within]
    expected = named_by_a_loop(table, history, [*excluded, *out])
    assert named.rows.tolist() == best(expected, k)
    assert named.similarity == pytest.approx([expected[row] for row in best(expected, k)])


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-1, 20), min_size=1, max_size=10, unique=True),
            st.floats(0.1, 2.0),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 12),
)
def test_a_blend_sums_the_shares_of_sources_of_length_one(
    sources: list[tuple[list[int], float]], k: int
) -> None:
    total: dict[int, float] = {}
    named: dict[int, int] = {}
    for place, (rows, share) in enumerate(sources):
        scores = {row: float(len(rows) - at) for at, row in enumerate(rows) if row >= 0}
        above = {row: score - min(scores.values()) for row, score in scores.items()}
        length = sum(value**2 for value in above.values()) ** 0.5 or 1.0
        for row, value in above.items():
            total[row] = total.get(row, 0.0) + share * value / length
            named[row] = named.get(row, 0) | 1 << place

    listed = [Listed(found(*rows), share, 1 << at) for at, (rows, share) in enumerate(sources)]
    merged = blend(listed, k)

    assert len(merged.rows) == min(k, len(total))
    assert merged.score == pytest.approx([total[row] for row in merged.rows.tolist()], abs=1e-6)
    assert merged.score == pytest.approx(sorted(total.values(), reverse=True)[:k], abs=1e-6)
    assert merged.named_by.tolist() == [named[row] for row in merged.rows.tolist()]


limited = st.tuples(
    st.lists(st.integers(0, 11), unique=True, max_size=10),
    st.sampled_from([0.0, 0.5, 1.0]),  # weight
    st.integers(0, 2),  # at least
    st.none() | st.integers(2, 5),  # at most
)


@given(st.lists(limited, min_size=1, max_size=3), st.integers(6, 9))
def test_a_blend_keeps_quotas_and_is_otherwise_the_best(
    sources: list[tuple[list[int], float, int, int | None]], k: int
) -> None:
    total: dict[int, float] = {}
    claimed: set[int] = set()
    for rows, share, least, most in sources:
        above = [float(len(rows) - 1 - at) for at in range(len(rows))]
        length = sum(value**2 for value in above) ** 0.5 or 1.0
        for row, value in list(zip(rows, above, strict=True))[:most]:
            total[row] = total.get(row, 0.0) + share * value / length
        claimed |= set(rows[:least])
    others = sorted((row for row in total if row not in claimed), key=lambda row: -total[row])
    expected = [*claimed, *others[: k - len(claimed)]]
    listed = [
        Listed(found(*rows), share, 1 << at, least, most)
        for at, (rows, share, least, most) in enumerate(sources)
    ]

    merged = blend(listed, k)

    assert claimed <= set(merged.rows.tolist())
    assert merged.score == pytest.approx(
        sorted((total[row] for row in expected), reverse=True), abs=1e-6
    )
    for at, (rows, _, least, most) in enumerate(sources):
        names = int(np.count_nonzero(merged.named_by >> at & 1))
        assert min(least, len(rows)) <= names
        assert most is None or names <= most


def test_what_is_merged_does_not_depend_on_how_many_are_asked_for() -> None:
    history, near = np.array([3, 7]), found(*range(2, 12))
    tables = [some_lists(1), some_lists(2, share=0.5)]

    few = blend_with_neighbours(near, 1.0, tables, history, 4, NONE)
    all_ = blend_with_neighbours(near, 1.0, tables, history, LIST_MIN, NONE)

    assert few.rows.tolist() == all_.rows[:4].tolist()
    assert few.score.tolist() == all_.score[:4].tolist()


@given(st.integers(0, 50), st.permutations(range(12)), st.lists(st.integers(-1, 11), max_size=8))
def test_lists_in_another_order_name_the_same_items(
    seed: int, order: list[int], history: list[int]
) -> None:
    table = some_lists(seed)
    now = {row: place for place, row in enumerate(order)} | {-1: -1}

    moved = similar(
        in_order(table, np.array(order)),
        np.array([now[row] for row in history], np.int64),
        12,
        NONE,
    )

    before = similar(table, np.array(history, np.int64), 12, NONE)
    rows = [order[row] for row in moved.rows.tolist()]
    assert dict(zip(rows, moved.similarity.tolist(), strict=True)) == dict(
        zip(before.rows.tolist(), before.similarity.tolist(), strict=True)
    )


@given(
    st.lists(st.sampled_from([-2.5, -0.0, 0.0, 1e-30, 1.0, 3.0]), max_size=40), st.integers(0, 45)
)
def test_the_largest_come_in_the_order_of_a_stable_sort(values: list[float], k: int) -> None:
    array = np.array(values, np.float32)

    assert largest(array, k).tolist() == np.argsort(-array, kind="stable")[:k].tolist()
