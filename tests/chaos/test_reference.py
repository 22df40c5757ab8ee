"""The linear reference of the fault run against the quadratic one, on its own traffic."""

from __future__ import annotations

import numpy as np
import pytest

from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import decode_batch, event_at
from rankstream.contracts.columns import VALUE_MAX
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.errors import InvalidInput
from rankstream.features import spec
from rankstream.features.rows import Rows
from rankstream.features.snapshot import snapshot
from rankstream.pb import events_pb2 as pb
from tests.chaos import reference
from tests.chaos.rows import Table, rows_of
from tests.chaos.traffic import END_MS, FUTURE_MS, SECOND_MS, WINDOWS, Traffic, traffic
from tests.parity import oracle

SEEDS = (1, 2, 3)
ORACLE = oracle.Settings(
    lateness_ms=WINDOWS.lateness_ms,
    click_window_ms=WINDOWS.click_window_ms,
    conversion_window_ms=WINDOWS.conversion_window_ms,
    session_gap_ms=WINDOWS.session_gap_ms,
)


def some_traffic(seed: int) -> Traffic:
    return traffic(1_500, seed, partitions=1)


def log_of(made: Traffic) -> dict[int, list[Record]]:
    """As one partition of the broker would hold it."""
    return {
        0: [
            Record("events", 0, offset, END_MS, b"", record.value)
            for offset, record in enumerate(made.records)
        ]
    }


def by_contract(made: Traffic) -> list[Event]:
    """The events that count, read through the contract and sifted by the quadratic reference."""
    found = []
    for record in made.records:
        try:
            columns = decode_batch(record.value)
            rows = range(len(columns))
        except InvalidInput:
            continue
        # An event of HTTP has no value where its kind needs none.
        valued = np.abs(np.nan_to_num(columns.value, nan=np.inf)) <= VALUE_MAX
        for row in rows:
            if columns.event_time_ms[row] not in (FUTURE_MS, SECOND_MS) and valued[row]:
                found += _accepted(record.value, row)
    return oracle.kept(found, WINDOWS.lateness_ms)


def _accepted(record: bytes, row: int) -> list[Event]:
    try:
        return [event_at(decode_batch(record), row)]
    except InvalidInput:
        return []


@pytest.mark.parametrize("seed", SEEDS)
def test_both_keep_the_same_events(seed: int) -> None:
    made = some_traffic(seed)

    sifted = reference.sift(log_of(made), WINDOWS)

    assert [event.event_id.hex() for event in sifted.kept] == [
        event.event_id.replace("-", "") for event in by_contract(made)
    ]
    assert sifted.duplicates
    assert sifted.late
    assert sifted.refused


@pytest.mark.parametrize("seed", SEEDS)
def test_both_find_the_same_labels_sessions_and_lost_feedback(seed: int) -> None:
    made = some_traffic(seed)
    events = by_contract(made)

    kept = reference.sift(log_of(made), WINDOWS).kept
    joined = reference.join(kept)

    assert {
        key: (label.impression_time_ms, label.position, label.clicked, label.purchased)
        for key, label in reference.labels(joined, WINDOWS).items()
    } == {
        key: (label.impression_time_ms, label.position, label.clicked, label.purchased)
        for key, label in oracle.labels(events, ORACLE).items()
    }
    assert {event_id.hex() for event_id in reference.unmatched(joined, WINDOWS)} == {
        event_id.replace("-", "") for event_id in oracle.unmatched(events, ORACLE)
    }
    assert [tuple(session) for session in reference.sessions(kept, WINDOWS.session_gap_ms)] == [
        tuple(vars(session).values()) for session in oracle.sessions(events, WINDOWS.session_gap_ms)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rows_have_the_features_of_the_quadratic_reference(seed: int) -> None:
    made = some_traffic(seed)
    events = by_contract(made)
    kept = reference.sift(log_of(made), WINDOWS).kept
    added = reference.additions(kept, reference.join(kept))
    described = {0: [Record("items", 0, 0, END_MS, b"", value) for _, value in made.items]}
    ended = reference.sessions(kept, WINDOWS.session_gap_ms)
    users, items, categories, queries, locations = rows_of(kept, added, ended, described).values()
    as_of_ms = max(event.event_time_ms for event in events)

    for user, item in zip(users.keys[::7], items.keys[::11], strict=False):
        item_row = row_of(items, item)
        category = item_row["category"][0].decode()
        query, location = queries.keys[len(user) % 7], locations.keys[len(item) % 2]
        context = np.stack([row_of(queries, query), row_of(locations, location)], axis=1)
        found = snapshot(
            row_of(users, user),
            item_row,
            row_of(categories, category),
            context,
            np.array([as_of_ms]),
        )
        wanted = oracle.features(
            events,
            [an_update(value) for _, value in made.items],
            user=user,
            item=item,
            as_of_ms=as_of_ms,
            gap_ms=WINDOWS.session_gap_ms,
            query=query,
            location=location,
        )

        np.testing.assert_allclose(
            found.reshape(-1), [wanted[name] for name in spec.NAMES], rtol=1e-5, atol=1e-6
        )


def row_of(table: Table, key: str) -> Rows:
    """Row of a key, shape (1,)."""
    place = table.keys.index(key)
    return table.rows[place : place + 1]


def an_update(value: bytes) -> ItemUpdate:
    item = pb.Item.FromString(value)
    return ItemUpdate(
        item_id=item.item_id,
        category=item.category,
        updated_ms=item.updated_ms,
        attributes=dict(item.attributes),
    )


def test_the_same_seed_makes_the_same_bytes() -> None:
    one, other, another = (some_traffic(seed) for seed in (1, 1, 2))

    assert one == other
    assert one != another


def test_the_traffic_has_as_many_events_as_were_asked_for() -> None:
    made = traffic(5_000, 1, partitions=4)

    assert 5_000 <= made.events < 5_000 * 1.1
    assert {record.partition for record in made.records} == {0, 1, 2, 3}
    assert sum(record.events == 1 for record in made.records) > len(made.records) / 2
