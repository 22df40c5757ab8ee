"""The columns of a rating table against sums written out, for one request and row by row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.ids import id32
from rankstream.features import spec
from rankstream.features.rating_table import (
    FACTOR_PENALTY,
    FACTORS,
    FIRST,
    LEVEL_STRENGTH,
    NO_RATINGS,
    WEIGHT_STRENGTH,
    RatingTable,
)
from rankstream.features.rows import RATED, USER_ROW, Rows, empty_rows

M = 12
STRANGER = 1 << 40 | 77  # an id64 whose half is in no table


def a_table(seed: int = 1) -> RatingTable:
    """Every item speaks for two to four others."""
    rng = np.random.default_rng(seed)
    rows = np.full((M, 4), -1, np.int32)
    weight = np.zeros((M, 4), np.float32)
    for item in range(M):
        named = rng.permutation(np.delete(np.arange(M), item))[: rng.integers(2, 5)]
        rows[item, : len(named)] = named
        weight[item, : len(named)] = np.sort(rng.random(len(named)))[::-1]
    return RatingTable(
        "index-1",
        np.sort(rng.choice(1 << 32, M, replace=False)).astype(np.uint32),
        3.6,
        rng.normal(size=M).astype(np.float32),
        rows,
        weight,
        rng.normal(size=(M, FACTORS)).astype(np.float32),
    )


TABLE = a_table()
# The upper half of an id64 is of no account.
HASHES = (TABLE.item.astype(np.uint64) | np.uint64(5 << 32)).tolist()
ITEMS = st.sampled_from([*HASHES, STRANGER])
RATINGS = st.lists(st.tuples(ITEMS, st.sampled_from([0.5, 3.0, 5.0])), max_size=RATED)


def a_user(ratings: list[tuple[int, float]]) -> Rows:
    user = empty_rows(1, USER_ROW)
    for place, (item, value) in enumerate(ratings):
        user["rated"][0, place] = (id32(item), value)
    return user


def filled(table: RatingTable, items: list[int], users: Rows) -> npt.NDArray[np.float32]:
    """The columns of the table, shape (n, 3), of vectors that were 9 throughout."""
    vectors = np.full((len(items), spec.WIDTH), 9.0, np.float32)
    table.fill(vectors, np.array(items, np.uint64), users)
    assert (vectors[:, :FIRST] == 9.0).all()
    return vectors[:, FIRST:]


def expected(ratings: list[tuple[int, float]], item: int) -> tuple[float, float, float]:
    """What the ratings say of one item, sum by sum."""
    place = {hash64: k for k, hash64 in enumerate(HASHES)}

    def deviation(hash64: int) -> float:
        return float(TABLE.deviation[place[hash64]]) if hash64 in place else 0.0

    above = [value - TABLE.mean - deviation(rated) for rated, value in ratings]
    level = sum(above) / (len(above) + LEVEL_STRENGTH)
    told = [(place[rated], a - level) for (rated, _), a in zip(ratings, above, strict=True)
            if rated in place]  # fmt: skip
    base = TABLE.mean + level + deviation(item)
    if item not in place:
        return base, 0.0, 0.0
    weighted, weights = 0.0, WEIGHT_STRENGTH
    for rated, left in told:
        for to, weight in zip(TABLE.rows[rated], TABLE.weight[rated], strict=True):
            if to == place[item]:
                weighted += float(weight) * left
                weights += float(weight)
    factors = TABLE.factor[[rated for rated, _ in told]].astype(np.float64)
    gram = factors.T @ factors + FACTOR_PENALTY * np.eye(FACTORS)
    user = np.linalg.solve(gram, factors.T @ np.array([left for _, left in told]))
    residual = weighted / weights
    return base + residual, residual, float(user @ TABLE.factor[place[item]])


@given(RATINGS, st.lists(ITEMS, min_size=1, max_size=6))
def test_the_columns_are_the_sums_written_out(
    ratings: list[tuple[int, float]], items: list[int]
) -> None:
    found = filled(TABLE, items, a_user(ratings))

    want = np.array([expected(ratings, item) for item in items])
    assert np.allclose(found, want, rtol=1e-5, atol=1e-5)


@given(st.lists(RATINGS, min_size=2, max_size=4), st.lists(ITEMS, min_size=4, max_size=4))
def test_a_row_of_many_has_the_bits_of_a_request_of_its_own(
    histories: list[list[tuple[int, float]]], items: list[int]
) -> None:
    items = items[: len(histories)]
    users = [a_user(ratings) for ratings in histories]

    together = filled(TABLE, items, np.concatenate(users))

    for item, user, row in zip(items, users, together, strict=True):
        alone = filled(TABLE, [STRANGER, item, HASHES[0]], user)
        assert alone[1].tobytes() == row.tobytes()


def test_a_table_of_nothing_leaves_the_defaults() -> None:
    assert (filled(NO_RATINGS, [HASHES[0]], a_user([(HASHES[1], 5.0)])) == 9.0).all()


def test_who_has_rated_nothing_is_told_what_all_think_of_an_item() -> None:
    (row,) = filled(TABLE, [HASHES[3]], a_user([]))

    assert row[0] == pytest.approx(TABLE.mean + TABLE.deviation[3], rel=1e-6)
    assert row[1:].tolist() == [0.0, 0.0]
