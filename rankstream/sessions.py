"""Cut each user's events into sessions by gaps of event time.

Two events belong to one session if no more than the gap lies between them, the
gap itself included. An event that arrives late may join two sessions. A session
is closed, and told of once, when the watermark has passed its last event by the
gap: nothing can join it any more. Counts are of events, repeats included.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from rankstream.contracts.columns import Kind

# What a user does. Attributes of the user and of the world around are not activity.
ACTIVITY_KINDS: Final = frozenset(
    int(kind)
    for kind in (
        Kind.IMPRESSION,
        Kind.CLICK,
        Kind.VIEW,
        Kind.VISIT,
        Kind.RATE,
        Kind.PURCHASE,
    )
)
_IMPRESSION: Final = int(Kind.IMPRESSION)
_CLICK: Final = int(Kind.CLICK)
_PURCHASE: Final = int(Kind.PURCHASE)

ActivityRow: TypeAlias = tuple[str, int, int]  # user_id, kind, event time


class ClosedSession(NamedTuple):
    """A session to which nothing can be added any more."""

    user_id: str
    start_ms: int
    end_ms: int
    events: int
    impressions: int
    clicks: int
    purchases: int


class _Session:
    __slots__ = ("clicks", "events", "impressions", "last_ms", "purchases", "start_ms")

    def __init__(self, start_ms: int, last_ms: int) -> None:
        self.start_ms = start_ms
        self.last_ms = last_ms
        self.events = self.impressions = self.clicks = self.purchases = 0

    def absorb(self, other: _Session) -> None:
        self.start_ms = min(self.start_ms, other.start_ms)
        self.last_ms = max(self.last_ms, other.last_ms)
        self.events += other.events
        self.impressions += other.impressions
        self.clicks += other.clicks
        self.purchases += other.purchases


# The session of a user's newest event, as far as it has been seen: start, last event, impressions,
# clicks.
LatestSession: TypeAlias = tuple[int, int, int, int]


class Sessions:
    """Open sessions of one partition: about 0.4 kB for each user active within gap and lateness."""

    def __init__(self, *, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._open: dict[str, list[_Session]] = {}  # in order of time
        self._due: list[tuple[int, str]] = []  # heap of (last event or before, user)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def fold(self, events: Iterable[ActivityRow]) -> list[str]:
        """Take in events of ACTIVITY_KINDS, none behind the watermark, none folded before.

        Returns the users that were active, each once.
        """
        opened, gap_ms = self._open, self._gap_ms
        active: dict[str, None] = {}
        for user, kind, time_ms in events:
            sessions = opened.get(user)
            if sessions is None:
                sessions = opened[user] = [_Session(time_ms, time_ms)]
                heapq.heappush(self._due, (time_ms, user))
            session = sessions[-1]
            after_ms = time_ms - session.last_ms
            if 0 <= after_ms <= gap_ms:
                session.last_ms = time_ms
            elif after_ms > gap_ms:
                session = _Session(time_ms, time_ms)
                sessions.append(session)
            elif not session.start_ms <= time_ms <= session.last_ms:
                session = self._place(user, sessions, time_ms)
            session.events += 1
            if kind == _IMPRESSION:
                session.impressions += 1
            elif kind == _CLICK:
                session.clicks += 1
            elif kind == _PURCHASE:
                session.purchases += 1
            active[user] = None
        return list(active)

    def _place(self, user: str, sessions: list[_Session], time_ms: int) -> _Session:
        """The session that an event belongs to, which it may start, lengthen or join from two."""
        merged = _Session(time_ms, time_ms)
        first_due_ms = sessions[0].last_ms
        apart: list[_Session] = []
        for session in sessions:
            if session.start_ms - self._gap_ms <= time_ms <= session.last_ms + self._gap_ms:
                merged.absorb(session)
            else:
                apart.append(session)
        sessions[:] = sorted([*apart, merged], key=lambda session: session.start_ms)
        if sessions[0].last_ms < first_due_ms:
            heapq.heappush(self._due, (sessions[0].last_ms, user))
        return merged

    def latest(self, users: Iterable[str]) -> list[LatestSession]:
        """The session of each user's newest event; every user has an open one."""
        opened = self._open
        return [
            (last.start_ms, last.last_ms, last.impressions, last.clicks)
            for last in (opened[user][-1] for user in users)
        ]

    def close(self, watermark_ms: int) -> list[ClosedSession]:
        """Sessions that the watermark has closed, by end, then user."""
        last_closed_ms = watermark_ms - self._gap_ms
        closed: list[ClosedSession] = []
        while self._due and self._due[0][0] < last_closed_ms:
            _, user = heapq.heappop(self._due)
            sessions = self._open.get(user)
            if sessions is None:
                continue
            session = sessions[0]
            if session.last_ms >= last_closed_ms:
                heapq.heappush(self._due, (session.last_ms, user))
                continue
            del sessions[0]
            closed.append(_closed(user, session))
            if sessions:
                heapq.heappush(self._due, (sessions[0].last_ms, user))
            else:
                del self._open[user]
        return sorted(closed, key=lambda session: (session.end_ms, session.user_id))

    def dump(self) -> bytes:
        """The open sessions, to go on from with `load`."""
        entries = [
            [user, [_closed("", session)[1:] for session in sessions]]
            for user, sessions in self._open.items()
        ]
        return json.dumps(entries, separators=(",", ":")).encode()

    def load(self, dump: bytes) -> None:
        """Replace the state by a dumped one."""
        self._open.clear()
        self._due.clear()
        for user, sessions in json.loads(dump):
            self._open[user] = [_loaded(*session) for session in sessions]
            heapq.heappush(self._due, (self._open[user][0].last_ms, user))


def _closed(user: str, session: _Session) -> ClosedSession:
    return ClosedSession(
        user,
        session.start_ms,
        session.last_ms,
        session.events,
        session.impressions,
        session.clicks,
        session.purchases,
    )


def _loaded(
    start_ms: int, last_ms: int, events: int, impressions: int, clicks: int, purchases: int
) -> _Session:
    session = _Session(start_ms, last_ms)
    session.events, session.impressions = events, impressions
    session.clicks, session.purchases = clicks, purchases
    return session
