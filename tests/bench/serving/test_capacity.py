"""Cores and memory from what was measured."""

from __future__ import annotations

import pytest

from bench.serving.capacity import DOCUMENT, Size, plan, put, request_ms, tables
from bench.serving.growth import fitted
from rankstream.features.rows import ITEM_ROW

FIGURES = {
    "base_ms": 1.0,
    "candidate_us": 2.0,
    "candidate_feature_us": 0.05,
    "search_1m_ms": 0.4,
    "search_exponent": 0.5,
    "search_10m_ms": 4.0,
    "process_gb": 0.2,
    "item_bytes": 100.0,
    "replicas_1.ranker_ms": 2.0,
    "replicas_2.ranker_ms": 2.2,
    "redis_ms": 0.02,
    "kafka_ms": 0.1,
    "fit_error": 0.1,
    "search_fit_error": 0.2,
}


@pytest.mark.parametrize(
    ("items", "search_ms"), [(250_000, 0.2), (1_000_000, 0.4), (4_000_000, 1.6), (10_000_000, 4.0)]
)
def test_a_request_costs_what_its_parts_cost(items: int, search_ms: float) -> None:
    size = Size(1.0, items, candidates=500, features=40)

    parts_ms = 1.0 + 500 * (2.0 + 40 * 0.05) / 1e3 + search_ms
    assert request_ms(FIGURES, size) == pytest.approx(parts_ms)


def test_a_plan_is_for_half_of_the_load_that_would_saturate_it() -> None:
    found = plan(FIGURES, Size(10_000.0, 4_000_000))

    assert found.request_ms == pytest.approx(4.6 * 1.1)
    assert found.ranker_cores == 102  # 10,000 x 5.06 ms / 0.5
    each_gb = 0.2 + 0.4 + 1_000_000 * ITEM_ROW.itemsize / 1e9
    assert found.ranker_gb == pytest.approx(102 * each_gb)
    assert (found.redis_cores, found.kafka_cores) == (1, 2)
    assert found.served_mb_s == pytest.approx(84.0)


def test_what_grows_with_the_features_is_told_from_what_does_not() -> None:
    grid = [(n, f) for n in (100, 500, 2_000) for f in (10, 40, 83)]
    costs = {(n, f): 1.5 + 0.001 * n + 0.00002 * n * f for n, f in grid}

    coefficients, error = fitted(costs)

    assert coefficients.tolist() == pytest.approx([1.5, 0.001, 0.00002])
    assert error < 1e-6


def test_the_document_takes_new_tables_and_keeps_its_text() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    found = tables(FIGURES, "a command")

    once = put(text, found)

    assert found in once
    assert put(once, found) == once
    assert once.split("<!--")[0] == text.split("<!--")[0]
    assert once.split("-->")[-1] == text.split("-->")[-1]
