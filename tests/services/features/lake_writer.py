"""`python -m tests.services.features.lake_writer FOLDER`: writes two tables until all is in."""

from __future__ import annotations

import sys
from uuid import UUID

from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch
from services.features.lake_delta import DeltaLog
from services.features.lake_rows import TABLES
from tests.parity.events import an_event
from tests.services.features.label_log import APPEND_MS, a_label_log

RECORDS = 240
PORTION = 3
EVENTS_PER_RECORD = 20


def event_records() -> list[Record]:
    """Records of `events`, partition 0; event k of the log has the id k."""
    return [
        Record(
            "events",
            0,
            offset,
            APPEND_MS,
            b"",
            encode_batch(
                [
                    an_event("impression", offset * EVENTS_PER_RECORD + k)
                    for k in range(EVENTS_PER_RECORD)
                ]
            ),
        )
        for offset in range(RECORDS)
    ]


def records_of(topic: str) -> list[Record]:
    """The log of one table, partition 0."""
    if topic == "events":
        return event_records()
    return a_label_log(1, records=RECORDS, partitions=1).records


def ids() -> set[bytes]:
    """Ids of all events of the log."""
    return {UUID(int=n).bytes for n in range(RECORDS * EVENTS_PER_RECORD)}


def main(folder: str) -> None:
    tables = [table for table in TABLES if table.topic in ("events", "labels")]
    logs = [(DeltaLog(folder, table), records_of(table.topic)) for table in tables]
    at = [log.open([0])[0] for log, _ in logs]
    while any(start < len(records) for start, (_, records) in zip(at, logs, strict=True)):
        for place, (log, records) in enumerate(logs):
            portion = records[at[place] : at[place] + PORTION]
            if portion:
                end = at[place] + len(portion)
                log.append(portion, {0: at[place]}, {0: end})
                at[place] = end


if __name__ == "__main__":
    main(sys.argv[1])
