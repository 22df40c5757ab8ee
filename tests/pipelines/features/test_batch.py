"""Daily tables against the slow oracle, and against the product's own labels and counters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ibis.expr.types import Table

from pipelines.features import batch
from pipelines.features.lake import read_log
from pipelines.features.point_in_time import counters_before
from pipelines.features.replay import Windows, added_to, attributed, in_event_time, places
from rankstream.contracts.batches import decode_batches
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.columns import EventColumns, TimeLimits
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.features import spec
from rankstream.features.deltas import Additions, Entity
from rankstream.features.rows import COUNTERS, ITEM_ROW, TOTALS, WINDOWS, windowed
from rankstream.stream.intake import take_in
from tests.parity import oracle
from tests.parity.events import START_MS, an_event
from tests.parity.strategies import (
    CATEGORIES,
    ITEMS,
    LOCATIONS,
    QUERIES,
    SETTINGS,
    USERS,
    Log,
    logs,
)
from tests.parity.test_fold import ORACLE
from tests.pipelines.features.batch_tables import APPEND_MS, event_table, tables

# Ibis 12 calls it, DuckDB 2 has another name for it.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

LONG_MS = 1 << 50
SHORT = Windows(
    click_window_ms=SETTINGS.click_window_ms,
    conversion_window_ms=SETTINGS.conversion_window_ms,
    session_gap_ms=SETTINGS.session_gap_ms,
    lateness_ms=SETTINGS.lateness_ms,
)
# How long a label takes in what comes to its key.
KEPT_MS = SHORT.conversion_window_ms + SHORT.lateness_ms
PROPERTY = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


def log_of(events: list[Event]) -> EventColumns:
    return decode_batches([encode_batch(events)]).columns


def replayed(events: list[Event]) -> tuple[set[tuple[Any, ...]], Additions]:
    """Labels and additions of the product's own replay."""
    columns = log_of(events)
    intake = take_in(columns, in_event_time(columns, until_ms=LONG_MS))
    changes, additions = attributed(intake, SHORT)
    found: set[tuple[Any, ...]] = {
        (
            *change.key,
            change.impression_time_ms,
            change.position,
            change.new.clicked,
            change.new.purchased,
            change.new.value_micros,
        )
        for change in changes
    }
    return found, additions


def labels_of(table: Table) -> set[tuple[Any, ...]]:
    rows = table.drop(*batch.NAMED).to_pyarrow().to_pylist()
    found = {tuple(row.values()) for row in rows}
    assert len(found) == len(rows)
    return found


@given(logs())
@PROPERTY
def test_labels_equal_the_reference(log: Log) -> None:
    expected = oracle.labels(oracle.kept(log.events, LONG_MS), ORACLE)

    found = tables(event_table(log.events), SHORT)

    assert labels_of(found.labels) == {
        (
            *key,
            label.impression_time_ms,
            label.position,
            int(label.clicked),
            int(label.purchased),
            label.value_micros,
        )
        for key, label in expected.items()
    }


@given(
    logs(),
    st.integers(1, 4 * 3_600_000),
    st.tuples(*map(st.sampled_from, (CATEGORIES, QUERIES, LOCATIONS))),
)
@PROPERTY
def test_features_equal_the_reference(log: Log, after_ms: int, named: tuple[str, str, str]) -> None:
    category, query, location = named
    as_of_ms = START_MS + after_ms
    before = [e for e in oracle.kept(log.events, LONG_MS) if e.event_time_ms < as_of_ms]
    described = [
        ItemUpdate(item_id=item, category=category, updated_ms=1, attributes={}) for item in ITEMS
    ]

    added = tables(event_table(log.events), SHORT).additions
    found = {
        entity: {
            row[key]: row
            for row in batch.counters(added, entity, as_of_ms).to_pyarrow().to_pylist()
        }
        for entity, key in batch.ENTITIES.items()
    }

    assert not any("" in rows for rows in found.values())
    for user, item in zip(USERS * 2, ITEMS, strict=True):
        expected = oracle.features(
            before,
            described,
            user=user,
            item=item,
            as_of_ms=as_of_ms,
            gap_ms=SHORT.session_gap_ms,
            query=query,
            location=location,
        )
        for entity, key in zip(batch.ENTITIES, (user, item, *named), strict=True):
            row = found[entity].get(key)
            for feature in spec.FEATURES:
                name = feature.name
                if row is not None and name in row:
                    assert np.isclose(row[name], expected[name], rtol=2e-7, atol=1e-7), name
                elif row is None and name in _columns(entity):
                    assert np.isclose(expected[name], feature.default), name


def _columns(entity: str) -> set[str]:
    """Features that `counters` gives."""
    suffixes = [f"_{window.name}" for window in WINDOWS]
    windowed = [f"{name}{s}" for name in ("log_impressions", "ctr") for s in (*suffixes, "")]
    return {f"{entity}_{n}" for n in (*windowed, "cvr", "log_ratings", "mean_rating", "log_idle_s")}


EDGES = st.sampled_from(
    [n * KEPT_MS + d for n in range(4) for d in (-1, 0, 1)]
    + [SHORT.click_window_ms, SHORT.click_window_ms + 1, SHORT.conversion_window_ms + 1]
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("impression", "click", "purchase", "view", "rate")),
            EDGES.map(lambda n: max(n, 0)) | st.integers(0, 5 * KEPT_MS),
            st.sampled_from(("r0", "r1")),
            st.sampled_from(CATEGORIES),
            st.integers(0, 2),
        ),
        min_size=1,
        max_size=14,
    )
)
@PROPERTY
def test_requests_that_come_back_are_cut_into_labels_as_the_product_cuts_them(
    drawn: list[tuple[str, int, str, str, int]],
) -> None:
    events = []
    for n, (kind, after_ms, request, category, position) in enumerate(drawn, start=1):
        about: dict[str, Any] = {"category": category}
        if kind in ("impression", "click", "purchase"):
            about["request_id"] = request
        if kind == "impression":
            about["position"] = position
        events.append(an_event(kind, n, after_ms=after_ms, **about))
    expected, additions = replayed(events)

    found = tables(event_table(events), SHORT)

    assert labels_of(found.labels) == expected
    as_of_ms = START_MS + 2 * KEPT_MS
    (row,) = batch.counters(found.additions, "item", APPEND_MS).to_pyarrow().to_pylist()
    assert _counts(row) == _product_counts(additions, APPEND_MS)
    early = batch.counters(found.additions, "item", as_of_ms).to_pyarrow().to_pylist()
    if early:
        assert _counts(early[0]) == _product_counts(additions, as_of_ms)


def _counts(row: dict[str, int]) -> list[int]:
    names = [f"{name}_{window.name}" for window in WINDOWS for name in COUNTERS]
    return [row[name] for name in (*names, *TOTALS, "last_ms")]


def _product_counts(additions: Additions, as_of_ms: int) -> list[int]:
    added = added_to(additions, Entity.ITEM, places(["i0"]))
    moment = np.array([as_of_ms])
    row = counters_before(ITEM_ROW, np.zeros(1, np.int64), moment, added)
    inside = windowed(row, moment)[0].reshape(-1).tolist()
    return [*inside, *row["totals"][0].tolist(), int(row["last_ms"][0])]


def test_events_that_the_stream_refuses_are_left_out(tmp_path: Path) -> None:
    good = event_table([an_event("impression", n, category="war") for n in range(1, 24)])
    breaks: list[tuple[str, object]] = [
        ("kind", 7),
        ("user_id", ""),
        ("user_id", "é" * 257),
        ("item_id", ""),
        ("item_id", "x" * 257),
        ("request_id", ""),
        ("request_id", "x" * 257),
        ("category", "é" * 33),
        ("query", "x" * 1025),
        ("location", "x" * 257),
        ("position", -1),
        ("position", 10_000),
        ("value", float("nan")),
        ("value", float("inf")),
        ("value", 2e9),
        ("event_time_ms", 0),
        ("event_time_ms", APPEND_MS + 60_001),
        ("event_time_ms", APPEND_MS - 400 * 86_400_000 - 1),
    ]
    kept: list[tuple[str, object]] = [
        ("user_id", "é" * 256),
        ("category", "é" * 32),
        ("event_time_ms", APPEND_MS + 60_000),
        ("event_time_ms", APPEND_MS - 400 * 86_400_000),
    ]
    rows = good.to_pylist()
    for row, (name, value) in zip(rows, [*breaks, *kept], strict=False):
        row[name] = value
    rows[-1] |= {"kind": 6, "value": -1.0}
    table = pa.Table.from_pylist(rows, good.schema)

    found = tables(table, SHORT).allowed.row.to_pyarrow().to_pylist()

    assert set(found) == set(range(len(rows))) - {*range(len(breaks)), len(rows) - 1}
    write_deltalake(str(tmp_path / "events"), table)
    log = read_log(tmp_path, until_ms=LONG_MS, limits=TimeLimits())
    assert len(found) == len(log.columns)


def test_money_is_rounded_half_to_even() -> None:
    values = [0.0000005, 0.0000015, 0.29, 19.99, 1e9, 0.1 + 0.2]
    events = [an_event("purchase", n, value=v) for n, v in enumerate(values, start=1)]
    _, additions = replayed(events)

    found = tables(event_table(events), SHORT).additions

    micros = found.value_micros.to_pyarrow().to_pylist()
    assert sorted(micros) == sorted(additions.amounts[:, TOTALS.index("value_micros")].tolist())
