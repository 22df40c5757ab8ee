"""Stage 1: fold one partition of `events` into user rows, labels, sessions and feature updates.

SIGNATURES PUBLISHED FIRST; the bodies follow within minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rankstream.contracts.columns import EventColumns, TimeLimits


@dataclass(frozen=True)
class FoldSettings:
    """What decides the fold's results; a dump made with others is refused. All in ms of event time."""

    lateness_ms: int = 600_000
    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000
    dedupe_ms: int = 600_000
    limits: TimeLimits = TimeLimits()


@dataclass(frozen=True)
class Counts:
    """Of one record: events == folded + duplicates + refused + late + ticks."""

    events: int
    folded: int
    duplicates: int
    refused: int
    late: int
    ticks: int
    unmatched: int  # held clicks and purchases given up now, each in Outputs.unmatched
    labels_closed: int  # labels that became final
    sessions_closed: int


@dataclass(frozen=True)
class Outputs:
    """What one source record produces; every bytes is a record value ready to send."""

    label_batch: bytes | None  # LabelBatch -> labels, same partition
    updates: dict[int, bytes]  # target partition -> FeatureUpdates
    sessions: list[bytes]  # Session -> sessions, same partition
    dead: bytes | None  # DeadLetter of this record's refused rows
    unmatched: list[bytes]  # DeadLetters of feedback whose impression never came
    changed_users: set[str]
    counts: Counts
    watermark_ms: int


class UserPartition:
    """State of one partition of `events`."""

    def __init__(self, partition: int, partitions: int, settings: FoldSettings) -> None: ...

    @property
    def offset(self) -> int:
        """Offset of the last record folded; -1: none."""

    @property
    def watermark_ms(self) -> int: ...

    def fold(
        self,
        columns: EventColumns,
        *,
        offset: int,
        append_time_ms: int,
        original: bytes,
        original_key: bytes = b"",
    ) -> Outputs:
        """Offsets must grow. `original` is the record's value, for a dead letter."""

    def skip(self, offset: int) -> None:
        """Take note of a record that could not be decoded (dead-lettered whole by `dead_record`)."""

    def rows(self, user_ids: Iterable[str]) -> list[tuple[str, bytes]]:
        """USER_ROW bytes of known users, stamped with the offset that last changed each."""

    def dump(self) -> bytes: ...

    def load(self, dump: bytes) -> None:
        """Replace the state. Raises InvalidArtifact: damaged, other version, partition or settings."""

    def sizes(self) -> dict[str, int]:
        """State size by part, for gauges: users, open_labels, sessions, dedupe_ids."""


def dead_record(
    *, code: str, reason: str, original: bytes, original_key: bytes, topic: str,
    partition: int, offset: int, append_time_ms: int, content_type: str = "application/x-protobuf",
) -> bytes:
    """DeadLetter of a whole record that could not be decoded. (lives in services/features/records.py)"""
