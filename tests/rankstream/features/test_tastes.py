"""Tastes against a dictionary of what was added, past 32 and past 256 categories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.features.rows import CATEGORIES, CATEGORY_TASTE
from rankstream.features.tastes import AMOUNTS, TASTES_HELD, TasteTable

ROWS = 3


class Plain:
    """The same, obvious and slow."""

    def __init__(self) -> None:
        self.rows: list[dict[int, list[int]]] = [{} for _ in range(ROWS)]

    def add(self, row: int, category: int, time_ms: int, amounts: list[int]) -> None:
        tastes = self.rows[row]
        taste = tastes.setdefault(category, [0] * (1 + len(AMOUNTS)))
        taste[0] = max(taste[0], time_ms)
        for place, amount in enumerate(amounts, start=1):
            taste[place] += amount
        if len(tastes) > TASTES_HELD:
            del tastes[min(tastes, key=lambda name: (tastes[name][0], name))]

    def slots(self, row: int) -> list[tuple[int, ...]]:
        tastes = self.rows[row]
        last = sorted(tastes, key=lambda name: (tastes[name][0], name))[-CATEGORIES:]
        found = [(name, *tastes[name]) for name in sorted(last)]
        return [*found, *[(0,) * (2 + len(AMOUNTS))] * (CATEGORIES - len(found))]


def filled(table: TasteTable) -> list[list[tuple[int, ...]]]:
    slots = np.zeros((ROWS, CATEGORIES), CATEGORY_TASTE)
    table.fill(slots, range(ROWS))
    return [[tuple(map(int, slot)) for slot in row] for row in slots.tolist()]


def restarted(table: TasteTable) -> TasteTable:
    slots, held = table.dump(slice(ROWS), {row: row for row in range(ROWS)})
    loaded = TasteTable()
    loaded.load(bytes(slots), held)
    return loaded


def drawn(seed: int, n: int, categories: int) -> list[tuple[int, int, int, list[int]]]:
    rng = np.random.default_rng(seed)
    columns = (
        rng.integers(0, ROWS, n),
        rng.integers(1, categories + 1, n) * np.int64(2**40),
        rng.integers(1, 50, n),  # times repeat
        rng.integers(-1, 3, (n, len(AMOUNTS))),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def added(table: TasteTable, part: list[tuple[int, int, int, list[int]]]) -> None:
    row, category, time_ms, amounts = zip(*part, strict=True)
    names: npt.NDArray[np.uint64] = np.array(category, np.uint64)
    table.add(np.array(row), names, np.array(time_ms), np.array(amounts))


@pytest.mark.parametrize("categories", [20, CATEGORIES, 60, 2 * TASTES_HELD])
@given(seed=st.integers(0, 99), batch=st.integers(1, 200), forget=st.integers(-1, ROWS - 1))
def test_tastes_equal_a_dictionary(categories: int, seed: int, batch: int, forget: int) -> None:
    table, plain = TasteTable(), Plain()
    table.reserve(ROWS)
    additions = drawn(seed, 4 * categories, categories)

    for start in range(0, len(additions), batch):
        part = additions[start : start + batch]
        added(table, part)
        for addition in part:
            plain.add(*addition)
        if start // batch == 2:
            table = restarted(table)
            if forget >= 0:
                table.forget([forget])
                plain.rows[forget] = {}

    assert filled(table) == [plain.slots(row) for row in range(ROWS)]
    assert filled(restarted(table)) == filled(table)


def test_many_crowded_rows_get_a_place_each() -> None:
    table, rows = TasteTable(), 100
    table.reserve(rows)
    names = np.arange(1, CATEGORIES + 3, dtype=np.uint64)
    for row in range(rows):
        ones = np.full((len(names), len(AMOUNTS)), row + 1)
        table.add(np.full(len(names), row), names, np.arange(len(names)) + 1, ones)

    slots = np.zeros((rows, CATEGORIES), CATEGORY_TASTE)
    table.fill(slots, range(rows))

    assert (slots["category"] == names[2:]).all()
    assert (slots["clicks"] == np.arange(1, rows + 1)[:, None]).all()
