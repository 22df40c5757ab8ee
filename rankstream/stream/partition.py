"""Stage 1: fold one partition of `events` into user rows, labels, sessions and feature updates.

No I/O and no clock: the outputs are a function of the records folded, in order
of offset, and of the settings. How calls are grouped, dumps and restarts change
nothing.

The watermark is the newest event time seen less the lateness, and never falls.
An event is late if it is behind the watermark that the events before it in the
log have set; it changes nothing here and is counted (the lake has it).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.attribution import Attribution
from rankstream.contracts.batches import decode_batches
from rankstream.contracts.columns import EventColumns, Kind, Refusal, TimeLimits, refuse
from rankstream.contracts.ids import partition_of
from rankstream.contracts.labels import FINAL
from rankstream.contracts.partitioning import misplaced
from rankstream.contracts.record import Record
from rankstream.features.attributes import USER_ATTRIBUTES
from rankstream.features.deltas import Additions, deltas_by_partition, distinct
from rankstream.features.expiry import STATE_TTL_MS, expiry_ms
from rankstream.features.state import UserStates
from rankstream.features.touched import Touched
from rankstream.sessions import Sessions
from rankstream.stream import dump as dumps
from rankstream.stream import records as encode
from rankstream.stream.dedupe import SeenIds
from rankstream.stream.intake import Intake, take_in
from rankstream.topics import MAX_RECORD_BYTES

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.intp]

DUMP_VERSION: Final = 6
# Of the labels that one run closes: a quarter of a record, as a character can be four bytes.
CLOSED_BYTES_MAX: Final = MAX_RECORD_BYTES // 4

_TICK: Final = int(Kind.TICK)

_partition_of = lru_cache(maxsize=1 << 16)(partition_of)


@dataclass(frozen=True)
class FoldSettings:
    """What decides the fold's results, in ms of event time; a dump made with others is refused."""

    lateness_ms: int = 600_000
    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000
    # An id is remembered for lateness + this; a resent event with its own time is late by then.
    dedupe_ms: int = 600_000
    # What has had no event for so long is forgotten, a little later; longer than any window.
    state_ttl_ms: int = STATE_TTL_MS
    limits: TimeLimits = field(default_factory=TimeLimits)
    # Of `events`: an event in another partition than its user's is refused; 0: not looked at.
    user_partitions: int = 0


@dataclass(frozen=True)
class Counts:
    """Of some records: events == folded + duplicates + refused + late + ticks.

    A record that cannot be decoded counts as one event, refused.
    """

    events: int
    folded: int
    duplicates: int
    refused: int
    late: int
    ticks: int
    undecodable: int  # records
    unmatched: int  # held clicks and purchases given up now, each in Outputs.unmatched
    labels_closed: int  # labels that became final
    sessions_closed: int


@dataclass(frozen=True)
class Outputs:
    """What a run of source records produces; every bytes is a record value ready to send."""

    label_batch: bytes  # LabelBatch -> labels, same partition; of no labels, too
    updates: dict[int, bytes]  # target partition -> FeatureUpdates
    sessions: list[bytes]  # Session -> sessions, same partition
    dead: list[bytes]  # DeadLetters of records and of their refused rows
    unmatched: list[bytes]  # DeadLetters of feedback whose impression never came
    users: Touched
    counts: Counts
    newest_times_ms: list[int]  # newest event time of each record of which something was folded
    watermark_ms: int


@dataclass(slots=True)
class _Kept:
    """Rows that are folded, and what became of the others."""

    rows: list[int] = field(default_factory=list)
    duplicates: int = 0
    late: int = 0
    ticks: int = 0


class _Run:
    """Records end to end: of each row, which record it is of and which of its rows it is."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.batches = decode_batches([record.value or b"" for record in records])
        events = self.batches.events
        self.ends = np.cumsum(events).tolist()
        self.record = np.repeat(np.arange(len(records)), events)
        self.row = np.arange(len(self.record)) - np.repeat(np.cumsum(events) - events, events)
        self.offsets = np.array([record.offset for record in records], np.int64)[self.record]
        append_ms = np.array([record.timestamp_ms for record in records], np.int64)
        self.append_time_ms = append_ms[self.record]


class UserPartition:
    """State of one partition of `events`."""

    def __init__(self, partition: int, partitions: int, settings: FoldSettings) -> None:
        self._partition = partition
        self._partitions = partitions
        self._settings = settings
        self._offset = -1
        self._newest_ms = 0
        self._seen = SeenIds(settings.lateness_ms + settings.dedupe_ms)
        self._attribution = Attribution(
            click_window_ms=settings.click_window_ms,
            conversion_window_ms=settings.conversion_window_ms,
            closed_bytes_max=CLOSED_BYTES_MAX,
        )
        self._sessions = Sessions(gap_ms=settings.session_gap_ms)
        self._users = UserStates(partition)

    @property
    def offset(self) -> int:
        """Offset of the last record folded; -1: none."""
        return self._offset

    @property
    def newest_ms(self) -> int:
        """Newest event time seen; 0: none."""
        return self._newest_ms

    @property
    def watermark_ms(self) -> int:
        """Event time before which nothing is folded any more; 0 at first."""
        return max(0, self._newest_ms - self._settings.lateness_ms)

    def fold(self, records: Sequence[Record]) -> Outputs:
        """Fold a run of records, at least one, whose offsets grow.

        The state after it is that of folding them one by one. What is put out is a function of the
        log and of where runs begin and end.
        """
        first_offset = self._offset + 1
        for record in records:
            assert record.offset > self._offset, (self._partition, record.offset, self._offset)
            self._offset = record.offset
        run = _Run(records)
        columns, invalid = run.batches.columns, run.batches.invalid
        dead = [encode.dead_record(records[k], error) for k, error in invalid.items()]
        refusals: list[Refusal] = []
        if len(columns):
            limits = self._settings.limits
            refusals = refuse(columns, append_time_ms=run.append_time_ms, limits=limits)
            if count := self._settings.user_partitions:
                where = {"partition": self._partition, "partitions": count}
                refusals = misplaced(columns, refusals, **where)
            dead += _dead_rows(run, refusals)
        kept, watermarks_ms = self._sieve(run, {refusal.row for refusal in refusals})
        rows = np.array(kept.rows, np.intp)
        intake = take_in(columns, rows)
        attributed = self._attribution.fold(
            intake.feedback_columns(offsets=run.offsets, rows=run.row, watermarks_ms=watermarks_ms),
            self.watermark_ms,
        )
        additions = intake.additions(attributed.repeats, attributed.moved)
        active = self._sessions.fold(intake.activity_rows())
        users = Touched(self._update(intake, additions, run, watermarks_ms))
        self._users.sessions(self._users.rows(active), self._sessions.latest(active))
        expiry = expiry_ms(self.watermark_ms, self._settings.state_ttl_ms)
        users.expire(self._users.expire(expiry))
        sessions = self._sessions.close(self.watermark_ms)
        last = {"partition": self._partition, "offset": self._offset}
        return Outputs(
            label_batch=encode.encode_labels(
                columns,
                intake.feedback[attributed.opened],
                attributed.changes,
                **last,
                first_offset=first_offset,
                watermark_ms=self.watermark_ms,
            ),
            updates={
                target: encode.encode_updates(deltas, **last)
                for target, deltas in deltas_by_partition(additions, self._target).items()
            },
            sessions=[encode.encode_session(session, **last) for session in sessions],
            dead=dead,
            unmatched=encode.dead_unmatched(
                attributed.unmatched,
                partition=self._partition,
                append_time_ms=records[-1].timestamp_ms,
            ),
            users=users,
            counts=Counts(
                events=len(columns) + len(invalid),
                folded=len(rows),
                duplicates=kept.duplicates,
                refused=len(refusals) + len(invalid),
                late=kept.late,
                ticks=kept.ticks,
                undecodable=len(invalid),
                unmatched=len(attributed.unmatched),
                labels_closed=sum(change.new.status == FINAL for change in attributed.changes),
                sessions_closed=len(sessions),
            ),
            newest_times_ms=_newest_times_ms(columns, rows, run.record[rows]),
            watermark_ms=self.watermark_ms,
        )

    def _sieve(self, run: _Run, refused: set[int]) -> tuple[_Kept, Ints]:
        """The rows to fold, and of every row the watermark before its record, shape (n,)."""
        columns, kept, seen = run.batches.columns, _Kept(), self._seen
        kinds, times, ids = columns.kind.tolist(), columns.event_time_ms.tolist(), columns.event_id
        lateness_ms, newest_ms = self._settings.lateness_ms, self._newest_ms
        watermarks = []
        known, start = seen.ids, 0
        for end in run.ends:
            before_ms = newest_ms
            own: dict[bytes, None] = {}
            watermarks.append(max(0, before_ms - lateness_ms))
            for row in range(start, end):
                if row in refused:
                    continue
                time_ms = times[row]
                if kinds[row] == _TICK:
                    kept.ticks += 1
                else:
                    own_id = ids[16 * row : 16 * row + 16]
                    if own_id in own or (own_id in known and seen.holds(own_id, before_ms)):
                        kept.duplicates += 1
                        continue
                    if time_ms < newest_ms - lateness_ms:
                        kept.late += 1
                        continue
                    own[own_id] = None
                    kept.rows.append(row)
                if time_ms > newest_ms:
                    newest_ms = time_ms
            if own:
                seen.remember(list(own), newest_ms)
            start = end
        seen.forget(newest_ms)
        self._newest_ms = newest_ms
        return kept, np.array(watermarks, np.int64)[run.record]

    def _update(
        self, intake: Intake, additions: Additions, run: _Run, watermarks_ms: Ints
    ) -> set[str]:
        """Bring users up to date; those that changed.

        Users expire as time goes on: records before and after such a moment are taken in apart.
        """
        expiry = expiry_ms(watermarks_ms, self._settings.state_ttl_ms)
        rows = np.sort(np.concatenate([intake.activity, intake.updates]))
        changed: set[str] = set()
        for moment_ms in np.unique(expiry[rows]).tolist():
            part = additions
            own = rows
            if expiry[rows[0]] != expiry[rows[-1]]:
                own = rows[expiry[rows] == moment_ms]
                # What is taken back, at the end, is of a user who was active just now.
                taken_back = np.full(len(additions) - len(intake.activity), rows[-1])
                of_row = np.append(intake.activity, taken_back)
                part = additions.take(np.flatnonzero(expiry[of_row] == moment_ms))
            changed |= self._update_users(intake, part, own, run, moment_ms)
        return changed

    def _update_users(
        self, intake: Intake, additions: Additions, rows: Places, run: _Run, expiry_ms: int
    ) -> set[str]:
        columns, users, strings = intake.columns, self._users, additions.strings
        user_of = columns.user_id
        numbers = distinct(len(strings), additions.user, user_of[rows])
        names = [strings[number] for number in numbers.tolist()]
        row_of = np.zeros(len(strings), np.int64)
        row_of[numbers] = users.rows(names, expiry_ms)
        users.count(row_of[additions.user], additions)
        first, last = int(rows[0]), int(rows[-1])
        own = intake.actions[(intake.actions >= first) & (intake.actions <= last)]
        users.act(intake.action_rows(own, row_of))
        stated = intake.attributes.row
        stated_at = np.flatnonzero((stated >= first) & (stated <= last))
        users.learn(*intake.stated(stated_at, row_of))
        users.changed(row_of[user_of[rows]], run.offsets[rows], columns.event_time_ms[rows])
        return set(names)

    def _target(self, key: str) -> int:
        return _partition_of(key, self._partitions)

    def rows(self, user_ids: Iterable[str]) -> list[tuple[str, bytes]]:
        """USER_ROW bytes of the known ones, each stamped with the offset that changed it last."""
        return self._users.packed(user_ids)

    def dump(self, note: bytes = b"") -> list[dumps.Piece]:
        """The whole state and a note of the caller's, in pieces: end to end they are for `load`.

        They are good until the next fold.
        """
        state = {"offset": self._offset, "newest_ms": self._newest_ms}
        return dumps.pack(
            self._meta(),
            {
                "note": note,
                "state": json.dumps(state).encode(),
                "sessions": self._sessions.dump(),
                **_prefixed("labels.", self._attribution.dump()),
                **_prefixed("seen.", self._seen.dump()),
                **_prefixed("users.", self._users.dump()),
            },
        )

    def load(self, dump: bytes) -> bytes:
        """Replace the state by a dumped one; the note that was dumped with it.

        Raises: InvalidArtifact if it is damaged, or of another version, partition
            or settings; nothing is replaced then.
        """
        parts = dumps.unpack(dump, self._meta())
        state = json.loads(parts["state"])
        self._offset, self._newest_ms = state["offset"], state["newest_ms"]
        self._attribution.load(_without("labels.", parts))
        self._sessions.load(parts["sessions"])
        self._seen.load(_without("seen.", parts))
        self._users.load(_without("users.", parts))
        return parts["note"]

    def _meta(self) -> dict[str, int | str]:
        return {
            "state": "users",
            "version": DUMP_VERSION,
            "attributes": ",".join(USER_ATTRIBUTES),
            "partition": self._partition,
            "partitions": self._partitions,
            "settings": json.dumps(asdict(self._settings), sort_keys=True),
        }

    def sizes(self) -> dict[str, int]:
        """State by part, for gauges."""
        return {
            "users": len(self._users),
            "open_labels": len(self._attribution),
            "open_sessions": len(self._sessions),
            "dedupe_ids": len(self._seen),
            "dedupe_evicted": self._seen.evicted,
            "feedback_overflow": self._attribution.overflow,
        }


def _dead_rows(run: _Run, refusals: Sequence[Refusal]) -> list[bytes]:
    by_record: dict[int, list[Refusal]] = {}
    for refusal in refusals:
        own = replace(refusal, row=int(run.row[refusal.row]))
        by_record.setdefault(int(run.record[refusal.row]), []).append(own)
    return [encode.dead_rows(run.records[k], found) for k, found in by_record.items()]


def _newest_times_ms(columns: EventColumns, rows: Places, record: Places) -> list[int]:
    """Newest event time of each record, of the rows folded, in the order of the log."""
    if not len(rows):
        return []
    first = np.flatnonzero(np.diff(record, prepend=-1))
    newest: list[int] = np.maximum.reduceat(columns.event_time_ms[rows], first).tolist()
    return newest


def _prefixed(prefix: str, parts: Mapping[str, dumps.Piece]) -> dict[str, dumps.Piece]:
    return {prefix + name: part for name, part in parts.items()}


def _without(prefix: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)
    }
