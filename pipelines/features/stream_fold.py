"""User, item and category rows as they stood at given offsets of the log.

A second composition of the parts that the stream composes (services/features/partition.py): what
the two disagree on is skew, and tests/parity holds them together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipelines.features.intake import addition, take_in
from rankstream.attribution import Attribution
from rankstream.contracts.codec import attributes_at
from rankstream.contracts.columns import EventColumns, Kind, TimeLimits, refuse
from rankstream.contracts.high_water import HighWater
from rankstream.features.items import ItemStates
from rankstream.features.rows import CATEGORY_ROW, ITEM_ROW, USER_ROW, Rows, empty_rows
from rankstream.features.state import UserStates
from rankstream.pb import events_pb2 as pb
from rankstream.sessions import Sessions


@dataclass(frozen=True)
class StreamSettings:
    """What decides the stream's results, in ms of event time: as the features service has it."""

    lateness_ms: int = 600_000
    click_window_ms: int = 1_800_000
    conversion_window_ms: int = 86_400_000
    session_gap_ms: int = 1_800_000
    dedupe_ms: int = 600_000
    limits: TimeLimits = field(default_factory=TimeLimits)


class UserFold:
    """The users of one partition of `events`."""

    def __init__(self, partition: int, settings: StreamSettings) -> None:
        self._settings = settings
        self._newest_ms = 0
        self._seen: set[bytes] = set()
        self._seen_by_record: deque[tuple[int, list[bytes]]] = deque()
        self._attribution = Attribution(
            click_window_ms=settings.click_window_ms,
            conversion_window_ms=settings.conversion_window_ms,
        )
        self._sessions = Sessions(gap_ms=settings.session_gap_ms)
        self._states = UserStates(partition)

    def fold(self, columns: EventColumns, *, offset: int, append_time_ms: int) -> None:
        """Fold one record; offsets must grow."""
        intake = take_in(columns, self._sieve(columns, append_time_ms))
        counted = map(addition, self._attribution.fold(intake.feedback, offset=offset))
        self._states.count([*intake.additions, *counted])
        self._states.act(intake.actions)
        self._sessions.fold(intake.activity)
        changed = {user for user, _, _ in intake.activity}
        for user in changed:
            latest = self._sessions.latest(user)
            assert latest is not None
            self._states.session(user, latest)
        for row in intake.updated_users:
            user, time_ms = columns.strings[int(columns.user_id[row])], columns.event_time_ms[row]
            self._states.learn(user, int(time_ms), attributes_at(columns, row))
            changed.add(user)
        self._states.changed(sorted(changed), offset)
        watermark_ms = max(0, self._newest_ms - self._settings.lateness_ms)
        self._attribution.close(watermark_ms)
        self._sessions.close(watermark_ms)

    def _sieve(self, columns: EventColumns, append_time_ms: int) -> list[int]:
        """Rows that count: allowed by the contract, on time, new."""
        limits, lateness_ms = self._settings.limits, self._settings.lateness_ms
        refused = {r.row for r in refuse(columns, append_time_ms=append_time_ms, limits=limits)}
        kept, ids = [], []
        for row, time_ms in enumerate(columns.event_time_ms.tolist()):
            if row in refused:
                continue
            if columns.kind[row] != Kind.TICK:
                own_id = columns.event_id[16 * row : 16 * row + 16]
                if own_id in self._seen or time_ms < self._newest_ms - lateness_ms:
                    continue
                self._seen.add(own_id)
                ids.append(own_id)
                kept.append(row)
            self._newest_ms = max(self._newest_ms, time_ms)
        if ids:
            self._seen_by_record.append((self._newest_ms, ids))
        forget_ms = self._newest_ms - lateness_ms - self._settings.dedupe_ms
        while self._seen_by_record and self._seen_by_record[0][0] < forget_ms:
            self._seen.difference_update(self._seen_by_record.popleft()[1])
        return kept

    def rows(self, users: Iterable[str]) -> dict[str, Rows]:
        """USER_ROW of known users, each of shape (1,)."""
        return {user: np.frombuffer(row, USER_ROW) for user, row in self._states.packed(users)}


class ItemFold:
    """The items and categories of one partition of `feature-updates`."""

    def __init__(self, partition: int) -> None:
        self._folded = HighWater()
        self._states = ItemStates(partition)

    def fold(self, updates: pb.FeatureUpdates, *, offset: int) -> None:
        """Fold one record; offsets must grow."""
        if not self._folded.advance(updates.source_partition, updates.source_offset):
            return
        columns = zip(
            updates.entity,
            [updates.strings[key] for key in updates.key],
            updates.event_time_ms,
            updates.impressions,
            updates.clicks,
            updates.views,
            updates.purchases,
            updates.value_micros,
            updates.ratings,
            updates.rating_micros,
            strict=True,
        )
        self._states.count(columns, offset=offset)

    def items(self, keys: Iterable[str]) -> dict[str, Rows]:
        """ITEM_ROW of known items, each of shape (1,), without what `items` says of them."""
        found = self._states.packed_items(keys)
        return {key: np.frombuffer(row, ITEM_ROW).copy() for key, row in found}

    def categories(self, keys: Iterable[str]) -> dict[str, Rows]:
        """CATEGORY_ROW of known categories, each of shape (1,)."""
        found = self._states.packed_categories(keys)
        return {key: np.frombuffer(row, CATEGORY_ROW) for key, row in found}


def nothing_known(dtype: np.dtype[np.void]) -> Rows:
    """The row of an entity that the log says nothing of, shape (1,)."""
    return empty_rows(1, dtype)
