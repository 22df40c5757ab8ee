"""Rows read a moment ago are used again; they are read anew before they are too old."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.metrics import Metrics
from rankstream.contracts.ids import id64
from rankstream.errors import DependencyUnavailable
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, USER_ROW, Rows, empty_rows
from services.ranker.kept_rows import NOWHERE, KeptRows, RowTable

AGE_S = 0.25


class CountingStore:
    """Rows whose `offset` is the number of the reading; says what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.fails = False

    async def user(self, user_id: str) -> Rows:
        return self._read([user_id], USER_ROW)

    async def items(self, item_ids: Sequence[str]) -> Rows:
        return self._read(item_ids, ITEM_ROW)

    async def categories(self, names: Sequence[str]) -> Rows:
        return self._read(names, CATEGORY_ROW)

    async def context(self, query: str, location: str) -> Rows:
        return self._read([query, location], CONTEXT_ROW)[None]

    async def user_and_items(self, user_id: str, item_ids: Sequence[str]) -> tuple[Rows, Rows]:
        rows = self._read(item_ids, ITEM_ROW)
        return empty_rows(1, USER_ROW), rows

    def _read(self, ids: Sequence[str], dtype: np.dtype[np.void]) -> Rows:
        if self.fails:
            raise DependencyUnavailable("dependency_unavailable: no store")
        self.asked.append(list(ids))
        rows = empty_rows(len(ids), dtype)
        rows["offset"] = len(self.asked)
        rows["totals"][:, 0] = [int(entity_id[1:] or 0) for entity_id in ids]
        if dtype == ITEM_ROW:
            rows["category"] = [b"even" if int(one[1:]) % 2 == 0 else b"odd" for one in ids]
        return rows


class Rig:
    """A store behind what is kept of it, and a clock."""

    def __init__(self, *, age_s: float = AGE_S, rows_max: int = 100) -> None:
        self.now_s = 100.0
        self.inner = CountingStore()
        self.registry = CollectorRegistry()
        self.kept = KeptRows(
            self.inner,
            age_s=age_s,
            rows_max=rows_max,
            clock_s=lambda: self.now_s,
            metrics_of=Metrics(self.registry),
        )

    def counted(self, view: str, source: str) -> float:
        labels = {"view": view, "source": source}
        return self.registry.get_sample_value("rankstream_ranker_rows_total", labels) or 0.0

    def use(self, *item_ids: str) -> float:
        """For how long their rows may have been out of date, as it is exported."""
        name = "rankstream_ranker_item_rows_stale_seconds_sum"
        before = self.registry.get_sample_value(name) or 0.0
        self.kept.used(self.kept.items(item_ids))
        return (self.registry.get_sample_value(name) or 0.0) - before

    async def need(self, item_ids: list[str]) -> None:
        """What an answer does before it uses rows of items."""
        if late := self.kept.due_items(item_ids, self.kept.items(item_ids)):
            await self.kept.read_items(late)

    def readings(self, *item_ids: str) -> list[int]:
        """Which reading each item's row is of, as it is kept."""
        kept = self.kept.items(item_ids)
        readings: list[int] = kept.rows["offset"][kept.item_of].tolist()
        return readings


async def test_only_what_is_unknown_or_old_is_waited_for() -> None:
    rig = Rig()
    await rig.need(["i1", "i2"])
    rig.now_s += AGE_S / 3

    await rig.need(["i3", "i2", "i1"])
    rig.now_s += AGE_S * 2 / 3
    await rig.need(["i1", "i2"])

    assert rig.inner.asked == [["i1", "i2"], ["i3"], ["i1", "i2"]]
    assert rig.readings("i1", "i2", "i3") == [3, 3, 2]
    assert (rig.counted("items", "kept"), rig.counted("items", "store")) == (2, 5)


async def test_a_row_in_use_is_read_once_in_the_background_before_it_is_too_old() -> None:
    rig = Rig()
    await rig.need(["i1"])
    rig.now_s += AGE_S * 0.6

    await rig.need(["i1"])
    await rig.need(["i1"])
    before = rig.readings("i1")
    await asyncio.sleep(0)
    rig.now_s += AGE_S * 0.6
    await rig.need(["i1"])

    assert before == [1]
    assert rig.readings("i1") == [2]
    # The second row is old enough by now to be read a third time.
    await asyncio.sleep(0)
    assert rig.inner.asked == [["i1"]] * 3


async def test_users_are_always_read_and_with_them_the_items_that_are_missing() -> None:
    rig = Rig()
    await rig.kept.user("u1")
    await rig.kept.user("u1")
    await rig.need(["i1"])

    user = await rig.kept.user_and_items("u1", ["i1", "i2"])
    await rig.kept.user_and_items("u1", ["i1", "i2"])

    assert rig.inner.asked == [["u1"], ["u1"], ["i1"], ["i2"], ["u1"]]
    assert (len(user), rig.readings("i1", "i2")) == (1, [3, 4])


async def test_categories_are_kept_apart_from_items() -> None:
    rig = Rig()
    await rig.need(["x1"])

    late = rig.kept.due_categories(["x1"])
    await rig.kept.read_categories(late)

    assert (late, rig.kept.due_categories(["x1"])) == (["x1"], [])
    assert rig.inner.asked == [["x1"], ["x1"]]
    assert rig.kept.categories(["x1"])["offset"].tolist() == [2]
    assert rig.kept.categories(["x1"]).dtype == CATEGORY_ROW


async def test_candidates_come_with_each_of_their_categories_once() -> None:
    rig = Rig()
    await rig.need(["i1", "i2", "i3"])

    kept = rig.kept.items(["i3", "unknown", "i2", "i1"])

    assert [kept.names[k] for k in kept.category_of.tolist()] == ["odd", "", "even", "odd"]
    hashes = dict(zip(kept.names, kept.category_hash.tolist(), strict=True))
    assert hashes == {"": 0, "even": id64("even"), "odd": id64("odd")}


async def test_age_zero_reads_always() -> None:
    rig = Rig(age_s=0)

    for _ in range(3):
        await rig.need(["i1"])

    assert rig.inner.asked == [["i1"]] * 3


async def test_a_context_is_read_once_and_nothing_of_nobody() -> None:
    rig = Rig()

    none = await rig.kept.context("", "")
    first = await rig.kept.context("q1", "h2")
    again = await rig.kept.context("q1", "h2")

    assert rig.inner.asked == [["q1", "h2"]]
    assert none.tobytes() == empty_rows(2, CONTEXT_ROW).tobytes()
    assert first["totals"][:, :, 0].tolist() == [[1, 2]]
    assert again.tobytes() == first.tobytes()


async def test_a_store_that_fails_leaves_what_is_kept_in_use() -> None:
    rig = Rig()
    await rig.need(["i1"])
    rig.inner.fails = True
    rig.now_s += AGE_S * 0.6
    await rig.need(["i1"])
    await asyncio.sleep(0)
    rig.now_s += AGE_S

    with pytest.raises(DependencyUnavailable):
        await rig.need(["i1", "i2"])

    assert rig.readings("i1", "i2") == [1, -1]
    assert rig.use("i1", "i2") == pytest.approx(1.6 * AGE_S)


async def test_what_the_store_would_tell_of_is_read_again_only_when_it_does() -> None:
    rig = Rig()
    rig.kept.tracked()
    rig.now_s += 1
    await rig.need(["i1", "i2"])
    rig.now_s += 100 * AGE_S

    await rig.need(["i1", "i2"])
    assert rig.use("i1", "i2") == 0
    rig.kept.changed("item_state", ["i2", "i9"])
    rig.now_s += AGE_S
    assert rig.use("i1") == 0
    assert rig.use("i1", "i2") == pytest.approx(AGE_S)
    await rig.need(["i1", "i2"])
    rig.kept.changed("item_state", None)
    rig.now_s += AGE_S
    await rig.need(["i1", "i2"])

    assert rig.inner.asked == [["i1", "i2"], ["i2"], ["i1", "i2"]]
    assert rig.registry.get_sample_value("rankstream_ranker_rows_tracked") == 1


async def test_what_was_read_before_changes_were_told_grows_old() -> None:
    rig = Rig()
    await rig.need(["i1"])
    rig.now_s += AGE_S / 4
    rig.kept.tracked()
    rig.now_s += AGE_S

    await rig.need(["i1"])
    rig.now_s += 100 * AGE_S
    await rig.need(["i1"])
    rig.kept.untracked()
    await rig.need(["i1"])

    assert rig.inner.asked == [["i1"]] * 3
    assert rig.registry.get_sample_value("rankstream_ranker_rows_tracked") == 0


def test_a_change_while_a_row_is_read_makes_the_row_old() -> None:
    table: RowTable[str] = RowTable(empty_rows(1, CATEGORY_ROW), rows_max=4)
    table.track(1.0)
    row = empty_rows(1, CATEGORY_ROW)
    table.put(["c"], row, 5.0)

    table.changed(["c"], 6.1)
    table.put(["c"], row, 6.0)
    during = table.since_s[table.places(["c"])].tolist()
    table.put(["c"], row, 6.2)

    assert during == [6.1]
    assert table.since_s[table.places(["c"])].tolist() == [np.inf]


@given(
    rows_max=st.integers(1, 6),
    asked=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=20),
)
def test_a_row_is_always_that_of_its_id_whatever_has_to_go(
    rows_max: int, asked: list[list[int]]
) -> None:
    table: RowTable[str] = RowTable(empty_rows(1, CATEGORY_ROW), rows_max=rows_max)
    for numbers in asked:
        rows = empty_rows(len(numbers), CATEGORY_ROW)
        rows["totals"][:, 0] = numbers
        table.put([f"c{number}" for number in numbers], rows, 5.0)

        places = table.places([f"c{number}" for number in range(10)])
        kept = np.flatnonzero(places != NOWHERE)
        assert table.rows["totals"][places[kept], 0].tolist() == kept.tolist()
        assert len(kept) <= rows_max
        assert {*numbers[-1:]} <= {*kept.tolist()}


def test_an_earlier_reading_that_comes_late_does_not_replace_a_later_one() -> None:
    table: RowTable[str] = RowTable(empty_rows(1, CATEGORY_ROW), rows_max=4)
    later, earlier = empty_rows(1, CATEGORY_ROW), empty_rows(1, CATEGORY_ROW)
    later["offset"], earlier["offset"] = 2, 1

    table.put(["c"], later, 5.0)
    table.put(["c"], earlier, 4.9)

    assert table.rows["offset"][table.places(["c"])].tolist() == [2]
