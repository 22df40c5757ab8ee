"""Events come out of the lake as they went in, but for those that break the contract."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from deltalake import write_deltalake

from pipelines.features.lake import read_log
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch, event_at
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import Event
from rankstream.errors import InvalidInput
from services.features.lake_rows import PARTITION_BY, event_rows
from tests.parity.events import START_MS, an_event

HOUR_MS = 3_600_000


def a_lake(root: Path, events: list[Event], *, append_ms: int = START_MS + HOUR_MS) -> Path:
    record = Record("events", 0, 0, append_ms, b"", encode_batch(events))
    table = event_rows([record]).table
    write_deltalake(str(root / "events"), table, partition_by=list(PARTITION_BY))
    return root


def test_events_up_to_the_given_time_come_back_whole(tmp_path: Path) -> None:
    events = [
        an_event("user_update", 1, attributes={"age": 30.0, "city": "Oslo"}),
        an_event("impression", 2, after_ms=10, category="war", position=3),
        an_event("rate", 3, after_ms=20, user="bob", value=2.5),
        an_event("visit", 4, after_ms=30, device="phone"),
    ]

    log = read_log(a_lake(tmp_path, events), until_ms=START_MS + 20, limits=TimeLimits())

    columns = log.columns
    assert [event_at(columns, row) for row in range(len(columns))] == events[:3]


def test_events_that_the_stream_refuses_are_left_out(tmp_path: Path) -> None:
    good = an_event("visit", 1)
    ahead = an_event("visit", 2, after_ms=2 * HOUR_MS)
    nameless = an_event("visit", 3).model_copy(update={"user_id": ""})

    log = read_log(
        a_lake(tmp_path, [good, ahead, nameless]),
        until_ms=START_MS + 9 * HOUR_MS,
        limits=TimeLimits(),
    )

    columns = log.columns
    assert [event_at(columns, row).event_id for row in range(len(columns))] == [str(UUID(int=1))]


def test_an_absent_or_empty_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="events cannot be read"):
        read_log(tmp_path / "nothing", until_ms=START_MS, limits=TimeLimits())

    lake = a_lake(tmp_path, [an_event("visit", 1)])
    with pytest.raises(InvalidInput, match="has no event until"):
        read_log(lake, until_ms=START_MS - 1, limits=TimeLimits())
