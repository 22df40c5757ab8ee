"""What the peers' programs share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.stream.comparison import json_records
from bench.stream.load import Traffic, draw
from bench.stream.peers.job import CLICK_WINDOW_MS, GAP_MS, Event, in_session, joined
from bench.stream.peers.meter import Meter
from rankstream.contracts.columns import Kind

NOW_MS = 1_795_000_000_000


def an_event(kind: str, time_ms: int) -> Event:
    return {"kind": kind, "user": "u", "item": "i", "request": "r", "time_ms": time_ms}


def test_a_session_goes_on_until_the_gap_and_is_handed_over_after_it() -> None:
    session, ended = in_session(None, 1_000)
    session, ended = in_session(session, 1_000 + GAP_MS)
    assert ended is None

    following, ended = in_session(session, 1_001 + 2 * GAP_MS)

    assert ended == [1_000, 1_000 + GAP_MS, 2]
    assert following == [1_001 + 2 * GAP_MS, 1_001 + 2 * GAP_MS, 1]


def test_a_click_joins_an_impression_up_to_the_end_of_the_window() -> None:
    shown: dict[str, int] = {}
    joined(shown, an_event("impression", 1_000))

    in_time = joined(shown, an_event("click", 1_000 + CLICK_WINDOW_MS))
    late = joined(shown, an_event("click", 1_001 + CLICK_WINDOW_MS))

    assert in_time is not None
    assert late is None


def test_impressions_that_are_too_old_are_forgotten() -> None:
    shown: dict[str, int] = {}
    joined(shown, an_event("impression", 1_000))

    joined(shown, an_event("impression", 1_001 + CLICK_WINDOW_MS) | {"item": "j"})

    assert list(shown) == ["r j"]


def test_the_peers_are_sent_the_same_events() -> None:
    events = draw(Traffic(500, end_ms=NOW_MS))

    sent = [event for record in json_records(events, 100) for event in json.loads(record.value)]

    assert sorted(event["time_ms"] for event in sent) == sorted(events.time_ms.tolist())
    clicks = np.count_nonzero(events.kind == Kind.CLICK)
    assert sum(event["kind"] == "click" for event in sent) == clicks


def test_the_meter_writes_once_the_last_event_is_counted(tmp_path: Path) -> None:
    out = tmp_path / "took.json"
    meter = Meter(3, out)
    meter.add()
    meter.add()
    assert not out.exists()

    meter.add()

    assert json.loads(out.read_text())["seen"] == 3
