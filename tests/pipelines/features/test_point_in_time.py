"""Counters before many moments equal counters folded up to each moment."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.features import point_in_time
from pipelines.features.point_in_time import Added, counters_before
from rankstream.features.counters import CounterTable
from rankstream.features.rows import CATEGORY_ROW, empty_rows

START_MS = 1_700_000_000_000


@pytest.mark.parametrize("span", [1, 3, 256])
def test_a_row_holds_what_happened_strictly_before(
    monkeypatch: pytest.MonkeyPatch, span: int
) -> None:
    monkeypatch.setattr(point_in_time, "SPAN", span)
    rng = np.random.default_rng(span)
    # Many moments are also the time of an addition: those must not be seen.
    query, query_ms = rng.integers(0, 3, 60), START_MS + 40_000 * rng.integers(0, 40, 60)
    entity, event_ms = rng.integers(0, 4, 200), START_MS + 40_000 * rng.integers(-3, 43, 200)
    amounts = rng.integers(0, 3, (200, 7))

    rows = counters_before(CATEGORY_ROW, query, query_ms, Added(entity, event_ms, amounts))

    for k in range(len(query)):
        table, only = CounterTable(), empty_rows(1, CATEGORY_ROW)
        table.row("only")
        seen = np.flatnonzero((entity == query[k]) & (event_ms < query_ms[k]))
        table.add(np.zeros(len(seen), np.int64), event_ms[seen], amounts[seen])
        table.fill(only, [0])
        assert rows[k].tobytes() == only.tobytes()
