"""Rows read a moment ago are given again; older ones are read anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from rankstream.adapters.metrics import Metrics
from rankstream.errors import DependencyUnavailable
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, USER_ROW, Rows, empty_rows
from services.ranker.recent_rows import RecentFeatureStore, RecentRows

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
        return rows


class Rig:
    """A store behind another, and a clock."""

    def __init__(self, *, age_s: float = AGE_S, rows_max: int = 100) -> None:
        self.now_s = 100.0
        self.inner = CountingStore()
        self.registry = CollectorRegistry()
        self.store = RecentFeatureStore(
            self.inner,
            age_s=age_s,
            rows_max=rows_max,
            clock_s=lambda: self.now_s,
            metrics_of=Metrics(self.registry),
        )

    def counted(self, view: str, source: str) -> float:
        labels = {"view": view, "source": source}
        return self.registry.get_sample_value("rankstream_ranker_rows_total", labels) or 0.0


async def test_only_what_is_unknown_or_old_is_read() -> None:
    rig = Rig()
    await rig.store.items(["i1", "i2"])
    rig.now_s += AGE_S / 2

    rows = await rig.store.items(["i3", "i2", "i1", "i3"])
    rig.now_s += AGE_S / 2
    later = await rig.store.items(["i1", "i3"])

    assert rig.inner.asked == [["i1", "i2"], ["i3", "i3"], ["i1"]]
    assert rows["offset"].tolist() == [2, 1, 1, 2]
    assert rows["totals"][:, 0].tolist() == [3, 2, 1, 3]
    assert later["offset"].tolist() == [3, 2]
    assert (rig.counted("items", "kept"), rig.counted("items", "store")) == (3, 5)


async def test_users_are_always_read_and_with_them_the_items_that_are_missing() -> None:
    rig = Rig()
    await rig.store.user("u1")
    await rig.store.user("u1")
    await rig.store.items(["i1"])

    user, rows = await rig.store.user_and_items("u1", ["i1", "i2"])

    assert rig.inner.asked == [["u1"], ["u1"], ["i1"], ["i2"]]
    assert (len(user), rows["totals"][:, 0].tolist()) == (1, [1, 2])


async def test_categories_are_kept_apart_from_items() -> None:
    rig = Rig()
    await rig.store.items(["x1"])

    rows = await rig.store.categories(["x1"])
    again = await rig.store.categories(["x1"])

    assert rig.inner.asked == [["x1"], ["x1"]]
    assert rows.dtype == CATEGORY_ROW
    assert again.tobytes() == rows.tobytes()


async def test_age_zero_reads_always() -> None:
    rig = Rig(age_s=0)

    for _ in range(3):
        await rig.store.items(["i1"])

    assert rig.inner.asked == [["i1"]] * 3


async def test_a_store_that_fails_fails_the_reading_of_what_is_missing_only() -> None:
    rig = Rig()
    await rig.store.items(["i1"])
    rig.inner.fails = True

    kept = await rig.store.items(["i1"])
    with pytest.raises(DependencyUnavailable):
        await rig.store.items(["i1", "i2"])

    assert kept["offset"].tolist() == [1]


async def test_what_a_caller_does_with_its_rows_changes_none_that_are_kept() -> None:
    rig = Rig()
    (await rig.store.items(["i1"]))["offset"] = 77

    assert (await rig.store.items(["i1"]))["offset"].tolist() == [1]


@given(
    rows_max=st.integers(1, 6),
    asked=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=20),
)
def test_a_row_is_always_that_of_its_id_whatever_has_to_go(
    rows_max: int, asked: list[list[int]]
) -> None:
    kept = RecentRows(CATEGORY_ROW, age_s=1.0, rows_max=rows_max)
    for numbers in asked:
        ids = [f"c{number}" for number in numbers]
        rows, old = kept.take(ids, 5.0)
        missing = empty_rows(len(old), CATEGORY_ROW)
        missing["totals"][:, 0] = [numbers[place] for place in old.tolist()]
        rows[old] = missing
        kept.put([ids[place] for place in old.tolist()], missing, 5.0)

        assert rows["totals"][:, 0].tolist() == numbers


def test_an_earlier_reading_that_comes_late_does_not_replace_a_later_one() -> None:
    kept = RecentRows(CATEGORY_ROW, age_s=1.0, rows_max=4)
    later, earlier = empty_rows(1, CATEGORY_ROW), empty_rows(1, CATEGORY_ROW)
    later["offset"], earlier["offset"] = 2, 1

    kept.put(["c"], later, 5.0)
    kept.put(["c"], earlier, 4.9)

    assert kept.take(["c"], 5.1)[0]["offset"].tolist() == [2]
