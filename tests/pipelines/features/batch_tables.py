"""Logs as the lake's table `events` in DuckDB, and what `batch.py` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import pyarrow as pa
from ibis.expr.types import Table

from pipelines.features import batch
from pipelines.features.replay import Windows
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.events import Event
from services.features.lake_rows import event_rows
from tests.parity.events import START_MS

DAY_MS = 86_400_000
APPEND_MS = START_MS + 30 * DAY_MS


def event_table(events: Sequence[Event]) -> pa.Table:
    """Rows of the lake, in the order given."""
    return event_rows([Record("events", 0, 0, APPEND_MS, b"", encode_batch(events))]).table


@dataclass(frozen=True)
class Tables:
    """The expressions of one log, run on DuckDB."""

    allowed: Table
    labels: Table
    additions: Table


def tables(events: pa.Table, windows: Windows) -> Tables:
    """All of them, in a database of their own."""
    connection = ibis.duckdb.connect(threads=1)

    def keep(query: Table) -> Table:
        return connection.create_table(ibis.util.gen_name("kept"), query)

    connection.con.register("events", events)
    source = connection.table("events").select(*batch.COLUMNS)
    allowed = batch.allowed(source, TimeLimits())
    activity = keep(batch.activity(allowed))
    feedback = batch.feedback(activity, windows, keep)
    labels = keep(batch.labels(feedback, windows))
    return Tables(allowed, labels, keep(batch.additions(activity, feedback)))
