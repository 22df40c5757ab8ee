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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Final

from rankstream.attribution import FINAL, Attribution, Counted, FeedbackRow
from rankstream.contracts.codec import attributes_at
from rankstream.contracts.columns import EventColumns, Kind, Refusal, TimeLimits, refuse
from rankstream.contracts.ids import partition_of
from rankstream.features.deltas import Addition, deltas_by_partition
from rankstream.features.rows import MICROS
from rankstream.features.state import RECENT_KINDS, Action, UserStates
from rankstream.sessions import ACTIVITY_KINDS, Sessions
from rankstream.stream import dump as dumps
from rankstream.stream import records
from rankstream.stream.dedupe import SeenIds

DUMP_VERSION: Final = 1

_IMPRESSION: Final = int(Kind.IMPRESSION)
_CLICK: Final = int(Kind.CLICK)
_VIEW: Final = int(Kind.VIEW)
_VISIT: Final = int(Kind.VISIT)
_RATE: Final = int(Kind.RATE)
_PURCHASE: Final = int(Kind.PURCHASE)
_USER_UPDATE: Final = int(Kind.USER_UPDATE)
_TICK: Final = int(Kind.TICK)

_partition_of = lru_cache(maxsize=1 << 17)(partition_of)


@dataclass(frozen=True)
class FoldSettings:
    """What decides the fold's results, in ms of event time; a dump made with others is refused."""

    lateness_ms: int = 600_000
    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000
    # An id is remembered for lateness + this; a resent event with its own time is late by then.
    dedupe_ms: int = 600_000
    limits: TimeLimits = field(default_factory=TimeLimits)


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


@dataclass(slots=True)
class _Kept:
    """Rows of a record that are folded, and what became of the others."""

    rows: list[int]
    ids: list[bytes]
    duplicates: int = 0
    late: int = 0
    ticks: int = 0


@dataclass(slots=True)
class _Fold:
    """One record's kept events, sorted by who takes them in."""

    feedback: list[FeedbackRow]
    additions: list[Addition]
    actions: list[Action]
    activity: list[tuple[str, int, int]]
    updated_users: list[int]  # rows of USER_UPDATE


class UserPartition:
    """State of one partition of `events`."""

    def __init__(self, partition: int, partitions: int, settings: FoldSettings) -> None:
        self._partition = partition
        self._partitions = partitions
        self._settings = settings
        self._offset = -1
        self._newest_ms = 0
        self._seen = SeenIds()
        self._attribution = Attribution(
            click_window_ms=settings.click_window_ms,
            conversion_window_ms=settings.conversion_window_ms,
        )
        self._sessions = Sessions(gap_ms=settings.session_gap_ms)
        self._users = UserStates(partition)

    @property
    def offset(self) -> int:
        """Offset of the last record folded or skipped; -1: none."""
        return self._offset

    @property
    def newest_ms(self) -> int:
        """Newest event time seen; 0: none."""
        return self._newest_ms

    @property
    def watermark_ms(self) -> int:
        """Event time before which nothing is folded any more; 0 at first."""
        return max(0, self._newest_ms - self._settings.lateness_ms)

    def fold(
        self,
        columns: EventColumns,
        *,
        offset: int,
        append_time_ms: int,
        original: bytes,
        original_key: bytes = b"",
    ) -> Outputs:
        """Fold one record. Offsets must grow.

        Args:
            columns: the decoded record.
            append_time_ms: the broker's clock when it was appended.
            original: the record's value, for a dead letter.
        """
        self.skip(offset)
        refusals = refuse(columns, append_time_ms=append_time_ms, limits=self._settings.limits)
        kinds, times = columns.kind.tolist(), columns.event_time_ms.tolist()
        kept = self._sieve(columns, kinds, times, refusals)
        fold = _sorted_out(columns, kinds, times, kept)
        changed = self._update(columns, times, fold, offset)
        watermark_ms = self.watermark_ms
        closed = self._attribution.close(watermark_ms)
        sessions = self._sessions.close(watermark_ms)
        where = {"partition": self._partition, "offset": offset}
        return Outputs(
            label_batch=(
                records.encode_labels(closed.changes, **where, watermark_ms=watermark_ms)
                if closed.changes
                else None
            ),
            updates=self._updates(fold.additions, offset),
            sessions=[records.encode_session(session, **where) for session in sessions],
            dead=(
                records.dead_rows(
                    refusals,
                    original=original,
                    original_key=original_key,
                    **where,
                    append_time_ms=append_time_ms,
                )
                if refusals
                else None
            ),
            unmatched=records.dead_unmatched(
                closed.unmatched, partition=self._partition, append_time_ms=append_time_ms
            ),
            changed_users=changed,
            counts=Counts(
                events=len(kinds),
                folded=len(kept.rows),
                duplicates=kept.duplicates,
                refused=len(refusals),
                late=kept.late,
                ticks=kept.ticks,
                unmatched=len(closed.unmatched),
                labels_closed=sum(change.new.status == FINAL for change in closed.changes),
                sessions_closed=len(sessions),
            ),
            watermark_ms=watermark_ms,
        )

    def skip(self, offset: int) -> None:
        """Pass over a record that cannot be decoded; `records.dead_record` is its dead letter."""
        assert offset > self._offset, (self._partition, offset, self._offset)
        self._offset = offset

    def _sieve(
        self,
        columns: EventColumns,
        kinds: list[int],
        times: list[int],
        refusals: list[Refusal],
    ) -> _Kept:
        kept = _Kept([], [])
        refused = {refusal.row for refusal in refusals}
        lateness_ms, newest_ms = self._settings.lateness_ms, self._newest_ms
        seen, event_id = self._seen.ids, columns.event_id
        for row, time_ms in enumerate(times):
            if row in refused:
                continue
            if kinds[row] == _TICK:
                kept.ticks += 1
            else:
                own_id = event_id[16 * row : 16 * row + 16]
                if own_id in seen:
                    kept.duplicates += 1
                    continue
                if time_ms < newest_ms - lateness_ms:
                    kept.late += 1
                    continue
                seen.add(own_id)
                kept.ids.append(own_id)
                kept.rows.append(row)
            if time_ms > newest_ms:
                newest_ms = time_ms
        self._newest_ms = newest_ms
        if kept.ids:
            self._seen.remember(kept.ids, newest_ms)
        self._seen.forget_before(newest_ms - lateness_ms - self._settings.dedupe_ms)
        return kept

    def _update(
        self, columns: EventColumns, times: list[int], fold: _Fold, offset: int
    ) -> set[str]:
        users = self._users
        fold.additions += map(_addition, self._attribution.fold(fold.feedback, offset=offset))
        users.count(fold.additions)
        users.act(fold.actions)
        self._sessions.fold(fold.activity)
        changed = {user for user, _, _ in fold.activity}
        for user in changed:
            latest = self._sessions.latest(user)
            assert latest is not None
            users.session(user, latest)
        for row in fold.updated_users:
            user = columns.strings[int(columns.user_id[row])]
            users.learn(user, times[row], attributes_at(columns, row))
            changed.add(user)
        users.changed(sorted(changed), offset)
        return changed

    def _updates(self, additions: Iterable[Addition], offset: int) -> dict[int, bytes]:
        deltas = deltas_by_partition(additions, self._target)
        return {
            target: records.encode_updates(rows, partition=self._partition, offset=offset)
            for target, rows in deltas.items()
        }

    def _target(self, key: str) -> int:
        return _partition_of(key, self._partitions)

    def rows(self, user_ids: Iterable[str]) -> list[tuple[str, bytes]]:
        """USER_ROW bytes of the known ones, each stamped with the offset that changed it last."""
        return self._users.packed(user_ids)

    def dump(self) -> bytes:
        """The whole state, to go on from with `load`."""
        state = {"offset": self._offset, "newest_ms": self._newest_ms}
        return dumps.pack(
            self._meta(),
            {
                "state": json.dumps(state).encode(),
                "labels": self._attribution.dump(),
                "sessions": self._sessions.dump(),
                **_prefixed("seen.", self._seen.dump()),
                **_prefixed("users.", self._users.dump()),
            },
        )

    def load(self, dump: bytes) -> None:
        """Replace the state by a dumped one.

        Raises: InvalidArtifact if it is damaged, or of another version, partition
            or settings; nothing is replaced then.
        """
        parts = dumps.unpack(dump, self._meta())
        state = json.loads(parts["state"])
        self._offset, self._newest_ms = state["offset"], state["newest_ms"]
        self._attribution.load(parts["labels"])
        self._sessions.load(parts["sessions"])
        self._seen.load(_without("seen.", parts))
        self._users.load(_without("users.", parts))

    def _meta(self) -> dict[str, int | str]:
        return {
            "state": "users",
            "version": DUMP_VERSION,
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


def _sorted_out(columns: EventColumns, kinds: list[int], times: list[int], kept: _Kept) -> _Fold:
    fold = _Fold([], [], [], [], [])
    strings = columns.strings
    users, items = columns.user_id.tolist(), columns.item_id.tolist()
    requests, categories = columns.request_id.tolist(), columns.category.tolist()
    positions, values = columns.position.tolist(), columns.value.tolist()
    for row, own_id in zip(kept.rows, kept.ids, strict=True):
        kind, time_ms, user = kinds[row], times[row], strings[users[row]]
        if kind not in ACTIVITY_KINDS:
            if kind == _USER_UPDATE:
                fold.updated_users.append(row)
            continue
        fold.activity.append((user, kind, time_ms))
        item, category = strings[items[row]], strings[categories[row]]
        request = strings[requests[row]]
        micros = round(values[row] * MICROS) if values[row] else 0
        if request and kind in _ATTRIBUTED:
            place = positions[row]
            fold.feedback.append(
                (user, request, item, kind, time_ms, place, category, micros, own_id, row)
            )
        if kind not in _FEEDBACK:
            fold.additions.append(_plain_addition(user, item, category, time_ms, kind, micros))
        if kind in RECENT_KINDS:
            fold.actions.append((user, item, category, time_ms, values[row], kind))
    return fold


_FEEDBACK: Final = frozenset((_IMPRESSION, _CLICK))
_ATTRIBUTED: Final = frozenset((_IMPRESSION, _CLICK, _PURCHASE))


def _addition(counted: Counted) -> Addition:
    (user, _, item), category, time_ms, kind, count = counted
    if kind == _IMPRESSION:
        return (user, item, category, time_ms, count, 0, 0, 0, 0, 0, 0)
    return (user, item, category, time_ms, 0, count, 0, 0, 0, 0, 0)


def _plain_addition(
    user: str, item: str, category: str, time_ms: int, kind: int, micros: int
) -> Addition:
    if kind == _VIEW:
        return (user, item, category, time_ms, 0, 0, 1, 0, 0, 0, 0)
    if kind == _PURCHASE:
        return (user, item, category, time_ms, 0, 0, 0, 1, micros, 0, 0)
    if kind == _RATE:
        return (user, item, category, time_ms, 0, 0, 0, 0, 0, 1, micros)
    assert kind == _VISIT, kind
    return (user, "", "", time_ms, 0, 0, 0, 0, 0, 0, 0)


def _prefixed(prefix: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    return {prefix + name: part for name, part in parts.items()}


def _without(prefix: str, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)
    }
