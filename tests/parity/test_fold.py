"""The fold against a slow, obvious reference: any order, any records, resent events, restarts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankstream.contracts.codec import encode_batch
from rankstream.features import spec
from rankstream.features.deltas import Entity
from rankstream.pb import events_pb2 as pb
from rankstream.stream import partition
from rankstream.stream.partition import FoldSettings
from tests.parity import oracle
from tests.parity.strategies import (
    CATEGORIES,
    HORIZON_MS,
    ITEMS,
    LOCATIONS,
    QUERIES,
    SETTINGS,
    USERS,
    Log,
    arrivals,
    cut,
    events,
    logs,
)
from tests.parity.stream import Stream

ORACLE = oracle.Settings(
    lateness_ms=SETTINGS.lateness_ms,
    click_window_ms=SETTINGS.click_window_ms,
    conversion_window_ms=SETTINGS.conversion_window_ms,
    session_gap_ms=SETTINGS.session_gap_ms,
)
# Users are forgotten within the time that logs span.
FORGETFUL = replace(SETTINGS, state_ttl_ms=40 * 60_000)
PROPERTY = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def _folded(log: Log, settings: FoldSettings = SETTINGS) -> Stream:
    stream = Stream(settings)
    stream.describe(log.items)
    for restart, records in log.runs:
        if restart:
            stream.restart()
        stream.run([encode_batch(record) for record in records])
    return stream


def _closed(log: Log, settings: FoldSettings = SETTINGS) -> Stream:
    stream = _folded(log, settings)
    stream.tick(log.newest_ms + HORIZON_MS + SETTINGS.lateness_ms + HORIZON_MS)
    return stream


@given(logs())
@PROPERTY
def test_final_labels_equal_the_reference(log: Log) -> None:
    expected = oracle.labels(oracle.kept(log.events, SETTINGS.lateness_ms), ORACLE)

    stream = _closed(log)

    assert stream.labels == {
        key: (
            2,
            int(label.clicked),
            int(label.purchased),
            label.value_micros,
            label.impression_time_ms,
            label.position,
        )
        for key, label in expected.items()
    }
    assert set(stream.finals.values()) <= {1}


@given(logs())
@PROPERTY
def test_feedback_without_an_impression_is_given_up_once(log: Log) -> None:
    expected = oracle.unmatched(oracle.kept(log.events, SETTINGS.lateness_ms), ORACLE)
    ids = {event.event_id: event for event in log.events}

    stream = _closed(log)

    where = [(dead.offset, dead.rows[0]) for dead in stream.unmatched]
    given_up = [log.records[offset][row].event_id for offset, row in where]
    assert sorted(given_up) == sorted(expected)
    assert stream.counts["unmatched"] == len(expected) <= len(ids)


@given(logs())
@PROPERTY
def test_closed_sessions_equal_the_reference(log: Log) -> None:
    kept = oracle.kept(log.events, SETTINGS.lateness_ms)

    stream = _closed(log)

    found = [
        oracle.Session(
            session.user_id,
            session.start_ms,
            session.end_ms,
            session.events,
            session.impressions,
            session.clicks,
            session.purchases,
        )
        for session in stream.sessions
    ]
    assert sorted(found, key=lambda s: (s.user_id, s.start_ms)) == oracle.sessions(
        kept, SETTINGS.session_gap_ms
    )


@given(logs(), st.integers(0, 3 * 3_600_000), st.sampled_from(USERS), st.sampled_from(ITEMS))
@PROPERTY
def test_every_feature_equals_the_reference(log: Log, later: int, user: str, item: str) -> None:
    as_of_ms = log.newest_ms + later
    expected = oracle.features(
        oracle.kept(log.events, SETTINGS.lateness_ms),
        log.items,
        user=user,
        item=item,
        as_of_ms=as_of_ms,
        gap_ms=SETTINGS.session_gap_ms,
    )

    found = _folded(log).features(user, item, as_of_ms)

    assert set(expected) == set(spec.NAMES)
    differing = {
        name: (float(value), expected[name])
        for name, value in zip(spec.NAMES, found, strict=True)
        if not np.isclose(value, expected[name], rtol=1e-6, atol=1e-6)
    }
    assert not differing


@given(logs())
@PROPERTY
def test_restarts_change_no_byte(log: Log) -> None:
    never = [False] * len(log.records)
    cuts = [a or b for a, b in zip(log.restarts, log.cuts, strict=True)]

    stopped, straight = _closed(log), _closed(Log(log.records, never, cuts, log.items))

    assert stopped.raw == straight.raw
    assert stopped.users.dump() == straight.users.dump()
    assert [items.dump() for items in stopped.items] == [items.dump() for items in straight.items]


@given(logs(), st.sampled_from((SETTINGS, FORGETFUL)))
@PROPERTY
def test_where_runs_of_records_are_cut_changes_nothing_in_the_end(
    log: Log, fold: FoldSettings
) -> None:
    never, always = [False] * len(log.records), [True] * len(log.records)

    in_runs = _closed(Log(log.records, never, log.cuts, log.items), fold)
    one_by_one = _closed(Log(log.records, never, always, log.items), fold)

    assert _outcome(in_runs) == _outcome(one_by_one)


@given(logs())
@PROPERTY
def test_closing_one_label_a_run_changes_nothing_in_the_end(log: Log) -> None:
    at_once = _closed(log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "CLOSED_BYTES_MAX", 1)
        one_by_one = _closed(log)
        last_ms = one_by_one.users.newest_ms
        for passed_ms in range(1, len(log.events) + 1):
            if not one_by_one.users.sizes()["open_labels"]:
                break
            out = one_by_one.tick(last_ms + passed_ms)
            assert (
                out.label_batch is None
                or len(pb.LabelBatch.FromString(out.label_batch).position) <= 1
            )

    for stream in (at_once, one_by_one):
        del stream.counts["ticks"], stream.counts["events"]
    assert _outcome(one_by_one) == _outcome(at_once)


def _outcome(stream: Stream) -> object:
    """All that is left at the end, without where runs ended."""
    return (
        stream.labels,
        stream.finals,
        sorted((s.user_id, s.start_ms, s.end_ms, s.events, s.clicks) for s in stream.sessions),
        sorted((dead.offset, dead.rows[0]) for dead in stream.unmatched),
        stream.counts,
        stream.users.rows(USERS),
        _unstamped(stream),
    )


def _unstamped(stream: Stream) -> list[list[bytes]]:
    """Rows of all that stage 2 counts by, past their stamps."""
    keys = dict(zip(Entity, (ITEMS, CATEGORIES, QUERIES, LOCATIONS), strict=True))
    return [
        [row[20:] for _, row in items.rows(entity, keys[entity])]
        for items in stream.items
        for entity in Entity
    ]


@given(st.data())
@PROPERTY
def test_order_and_batching_change_no_row(data: st.DataObject) -> None:
    distinct = data.draw(events())
    streams = []
    for _ in range(2):
        records = data.draw(cut(data.draw(arrivals(distinct))))
        streams.append(_folded(Log(records, [False] * len(records), [True] * len(records), [])))

    one, other = (
        [
            [row[20:] for _, row in stream.users.rows(USERS)],  # past the stamp
            *_unstamped(stream),
        ]
        for stream in streams
    )

    assert one == other


@given(logs())
@PROPERTY
def test_no_event_is_lost_or_counted_twice(log: Log) -> None:
    stream = _folded(log)

    counts = stream.counts
    assert counts["events"] == len(log.events)
    assert counts["folded"] == len(oracle.kept(log.events, SETTINGS.lateness_ms))
    assert counts["events"] == sum(
        counts[name] for name in ("folded", "duplicates", "refused", "late", "ticks")
    )
