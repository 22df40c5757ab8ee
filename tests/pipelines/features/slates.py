"""A lake with all its tables, written by what writes them, of a log served as it went."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from deltalake import write_deltalake

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch
from rankstream.contracts.events import Event
from rankstream.features import spec
from rankstream.pb import events_pb2 as pb
from rankstream.stream.partition import FoldSettings
from services.features.lake_labels import label_changes, upserts
from services.features.lake_rows import event_rows, served_rows
from tests.parity.stream import APPEND_MS, Stream
from tests.parity.test_training_rows import ITEMS

DAY_MS = 86_400_000


def a_slate(live: Stream, event: Event) -> pb.ServedSlate:
    """The slate of one item that `event` is the impression of, at the same moment."""
    assert event.kind == "impression"
    named = {"query": event.query, "location": event.location}
    vector = live.features(event.user_id, event.item_id, event.event_time_ms, **named)
    return pb.ServedSlate(
        request_id=event.request_id,
        user_id=event.user_id,
        served_time_ms=event.event_time_ms,
        item_id=[event.item_id],
        features=vector.astype("<f4").tobytes(),
        spec_id=spec.SPEC_ID,
    )


def write_lake(root: Path, events: Sequence[Event], *, served: int | None = None) -> None:
    """Events in order of time; of their impressions the last `served` come from slates.

    A slate knows what was before its moment. All labels are final.
    """
    live, slates, batches = Stream(FoldSettings()), list[pb.ServedSlate](), list[bytes]()
    live.describe(ITEMS)
    shown = sum(event.kind == "impression" for event in events)
    for _, group in groupby(events, key=lambda event: event.event_time_ms):
        together = list(group)
        slates += [a_slate(live, event) for event in together if event.kind == "impression"]
        batches.append(live.send(together).label_batch or b"")
    batches.append(live.tick(events[-1].event_time_ms + 9 * DAY_MS).label_batch or b"")
    append_events(root, events, offset=0)
    append_slates(root, slates[shown - (shown if served is None else served) :], offset=0)
    append_labels(root, [batch for batch in batches if batch], offset=0)


def append_events(root: Path, events: Sequence[Event], *, offset: int) -> None:
    record = Record("events", 0, offset, APPEND_MS, b"", encode_batch(events))
    write_deltalake(str(root / topics.EVENTS.name), event_rows([record]).table, mode="append")


def append_slates(root: Path, slates: Sequence[pb.ServedSlate], *, offset: int) -> None:
    records = [
        Record("served", 0, offset + k, APPEND_MS, b"", slate.SerializeToString())
        for k, slate in enumerate(slates)
    ]
    write_deltalake(str(root / topics.SERVED.name), served_rows(records).table, mode="append")


def append_labels(root: Path, batches: Sequence[bytes], *, offset: int) -> None:
    records = [
        Record("labels", 0, offset + k, APPEND_MS, b"", batch) for k, batch in enumerate(batches)
    ]
    rows = upserts(label_changes(records).table).drop_columns("starts")
    write_deltalake(str(root / topics.LABELS.name), rows, mode="append")
