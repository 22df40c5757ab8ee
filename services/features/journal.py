"""The runs in which a partition's records were folded, as topic `labels` holds them.

What a run of source records puts out depends on where it begins and ends, so a worker that takes a
partition over must fold the same runs again, or readers could count a part twice. A run is in the
log of `labels` before anything else of it is sent, at the offset that its worker expects: whoever
finds another offset has been overtaken. So the log of one partition of `labels` has one history,
whatever a worker that was thought dead still sends, and readers skip what does not continue it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.adapters.log_range import PartitionLog
from rankstream.contracts.record import Record
from rankstream.pb import events_pb2 as pb


class Overtaken(Exception):
    """Another worker has written to the journal of this partition."""


@dataclass(frozen=True)
class Runs:
    """Ends of the runs that follow on a position, in order; `journal_next` is behind them all."""

    ends: list[int]  # offset of the last record of each run
    journal_next: int


async def read_runs(kafka_url: str, partition: int, *, journal_next: int, position: int) -> Runs:
    """Runs of the records from `position` on; the journal is read from `journal_next` on.

    Raises: Conflict, DependencyUnavailable.
    """
    log = PartitionLog(kafka_url, topics.LABELS.name, partition, client_id="features-journal")
    ends: list[int] = []
    async with aclosing(log.read(journal_next)) as portions:
        async for records in portions:
            ends += chain(records, ends[-1] + 1 if ends else position)
            journal_next = records[-1].offset + 1
    return Runs(ends, journal_next)


def chain(records: Iterable[Record], position: int) -> list[int]:
    """Ends of those runs that begin where the one before has ended, the first at `position`."""
    ends = []
    for record in records:
        try:
            run = pb.LabelBatch.FromString(record.value or b"")
        except DecodeError:
            continue
        if run.first_offset == position:
            ends.append(run.source_offset)
            position = run.source_offset + 1
    return ends
