"""Rating tables of a log: what they hold, and that no row knows a rating of its own time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelines.features import rating_tables as module
from pipelines.features.rating_tables import (
    COMMON_STRENGTH,
    DEVIATION_STRENGTH,
    Ratings,
    fit_rating_table,
    fit_rating_tables,
    ratings_of,
)
from pipelines.features.replay import ItemFacts, Windows, in_event_time, training_rows
from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id32, id64
from rankstream.features import spec
from rankstream.features.rating_table import FIRST, LEVEL_STRENGTH, NO_RATINGS, RatingTable
from rankstream.features.rows import USER_ROW, empty_rows
from rankstream.stream.partition import FoldSettings
from tests.parity.stream import Stream
from tests.parity.test_training_rows import ITEMS, a_log, columns_of
from tests.rankstream.features.test_rating_table import filled


def some_ratings(n: int = 1_500, *, seed: int = 1) -> Ratings:
    """Two kinds of people like two kinds of items."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 60, n), rng.integers(1, 31, n)
    value = np.where(user % 2 == item % 2, 4.0, 2.0) + rng.integers(0, 2, n)
    return Ratings(
        user, item.astype(np.uint32), value.astype(np.float64), np.arange(n, dtype=np.int64)
    )


def test_a_table_holds_deviations_and_the_most_alike() -> None:
    ratings = some_ratings()

    table = fit_rating_table(ratings)

    mean = ratings.value.mean()
    deviation = {
        item: (ratings.value[ratings.item == item] - mean).sum()
        / ((ratings.item == item).sum() + DEVIATION_STRENGTH)
        for item in range(1, 31)
    }
    assert table.item.tolist() == list(range(1, 31))
    assert np.allclose(table.deviation, list(deviation.values()), atol=1e-6)
    left = np.zeros((60, 30))
    common = np.zeros((60, 30))
    for user in range(60):
        own = np.flatnonzero(ratings.user == user)
        above = [ratings.value[k] - mean - deviation[ratings.item[k]] for k in own]
        level = sum(above) / (len(own) + LEVEL_STRENGTH)
        for k, one in zip(own, above, strict=True):
            left[user, ratings.item[k] - 1] += one - level
            common[user, ratings.item[k] - 1] += 1
    both = common.T @ common
    length = np.sqrt((left**2).sum(axis=0))
    alike = (left.T @ left) / np.outer(length, length) * both / (both + COMMON_STRENGTH)
    np.fill_diagonal(alike, 0.0)
    for item in range(30):
        named = table.rows[item] >= 0
        assert np.all(np.diff(table.weight[item]) <= 0)
        assert set(table.rows[item][named]) == set(np.flatnonzero(alike[item] > 0))
        want = alike[item, table.rows[item][named]]
        assert np.allclose(table.weight[item][named], want, atol=1e-5)
        assert np.all(table.weight[item][~named] == 0.0)


def test_factors_tell_the_two_kinds_apart() -> None:
    table = fit_rating_table(some_ratings())
    user = empty_rows(1, USER_ROW)
    for place, item in enumerate((2, 4, 6, 8, 10, 3, 5, 7)):
        user["rated"][0, place] = (item, 5.0 if item % 2 == 0 else 2.0)

    found = filled(table, list(range(11, 31)), user)

    even = np.arange(11, 31) % 2 == 0
    assert found[even, 2].min() > 0.2 > -0.2 > found[~even, 2].max()


def test_few_ratings_make_no_table() -> None:
    ratings = some_ratings(module.RATINGS_MIN - 1)

    assert fit_rating_table(ratings) is NO_RATINGS
    assert fit_rating_tables(ratings).tables == ()
    assert fit_rating_tables(ratings.take(np.arange(0))).tables == ()


def test_what_a_table_is_made_of_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ITEMS_MAX", 5)
    monkeypatch.setattr(module, "PEOPLE_MAX", 7)
    monkeypatch.setattr(module, "RATINGS_MAX", 2)
    ratings = some_ratings()

    kept = ratings.take(module._kept(ratings))

    often = sorted(range(1, 31), key=lambda item: (-(ratings.item == item).sum(), item))[:5]
    of_often = [(u, i) for u, i in zip(ratings.user, ratings.item, strict=True) if i in often]
    last: list[int] = []
    for user, _ in of_often[::-1]:
        if user not in last:
            last.append(user)
    assert set(kept.item.tolist()) <= set(often)
    assert set(kept.user.tolist()) == set(last[:7])
    assert np.unique(kept.user, return_counts=True)[1].max() == 2
    newest = np.flatnonzero((ratings.user == last[0]) & np.isin(ratings.item, often))[-2:]
    assert kept.time_ms[kept.user == last[0]].tolist() == ratings.time_ms[newest].tolist()


def same(one: RatingTable, other: RatingTable) -> bool:
    pairs = ((getattr(one, name), getattr(other, name)) for name in ("item", "rows", "factor"))
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_table_knows_no_rating_from_its_time_on() -> None:
    ratings = some_ratings(3_000)
    tables = fit_rating_tables(ratings)
    assert len(tables.tables) > 10

    for from_ms, table in zip(tables.from_ms.tolist(), tables.tables, strict=True):
        value = np.where(ratings.time_ms >= from_ms, 0.5, ratings.value)
        again = fit_rating_tables(replace(ratings, value=value))
        place = again.from_ms.tolist().index(from_ms)
        assert same(again.tables[place], table)
        assert same(
            fit_rating_table(ratings.take(np.flatnonzero(ratings.time_ms < from_ms))), table
        )


def test_a_row_is_filled_by_the_newest_table_before_it() -> None:
    ratings = some_ratings(3_000)
    tables = fit_rating_tables(ratings)
    first, second = tables.from_ms[:2].tolist()
    users = np.repeat(empty_rows(1, USER_ROW), 4)
    users["rated"][:, 0] = (4, 5.0)
    before_ms = np.array([second, first - 1, first, second - 1])
    vectors = np.full((4, spec.WIDTH), 9.0, np.float32)

    tables.fill(vectors, np.full(4, 6, np.uint64), users, before_ms)

    assert (vectors[1] == 9.0).all()
    of_first = filled(tables.tables[0], [6], users[:1])[0]
    of_second = filled(tables.tables[1], [6], users[:1])[0]
    assert [row.tobytes() for row in vectors[[2, 3, 0], FIRST:]] == [
        of_first.tobytes(),
        of_first.tobytes(),
        of_second.tobytes(),
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_training_row_has_the_bits_that_a_ranker_with_its_table_would_serve(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RATINGS_MIN", 10)
    events = a_log(seed)
    columns = columns_of(events)
    until_ms = events[-1].event_time_ms + 86_400_000
    tables = fit_rating_tables(ratings_of(columns, in_event_time(columns, until_ms=until_ms)))
    facts = {item.item_id: ItemFacts(item.category, item.attributes) for item in ITEMS}
    live = Stream(FoldSettings())
    live.describe(ITEMS)
    served = {}
    for time_ms in sorted({event.event_time_ms for event in events}):
        together = [event for event in events if event.event_time_ms == time_ms]
        known = np.flatnonzero(tables.from_ms <= time_ms)
        table = tables.tables[known[-1]] if len(known) else NO_RATINGS
        for event in together:
            if event.kind == "impression":
                named = {"query": event.query, "location": event.location}
                vector = live.features(event.user_id, event.item_id, time_ms, **named)[None]
                item = np.array([id64(event.item_id)], np.uint64)
                table.fill(vector, item, live.user(event.user_id))
                served[event.user_id, event.item_id, time_ms] = vector.tobytes()
        live.send(together)

    rows = training_rows(columns, facts, until_ms=until_ms, windows=Windows())

    assert len(rows) > 30
    for k in range(len(rows)):
        key = rows.users[rows.user[k]], rows.items[rows.item[k]], int(rows.time_ms[k])
        assert rows.features[k].tobytes() == served[key], key
    assert len(np.unique(rows.features[:, -1])) > 10


def test_ratings_are_those_of_the_log_each_once() -> None:
    events = a_log(3)
    columns = columns_of([*events, *events[:50]])

    found = ratings_of(columns, in_event_time(columns, until_ms=events[-1].event_time_ms))

    rated = [event for event in events if event.kind == "rate"]
    assert found.value.tolist() == [event.value for event in rated]
    assert found.item.tolist() == [id32(id64(event.item_id)) for event in rated]
    users = [event.user_id for event in rated]
    assert len(set(zip(found.user.tolist(), users, strict=True))) == len(set(users))
    assert not (columns.kind == Kind.RATE).all()
