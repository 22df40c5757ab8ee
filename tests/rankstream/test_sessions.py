"""Sessions of single users, at the edges of the gap."""

from __future__ import annotations

from rankstream.contracts.columns import Kind
from rankstream.sessions import ClosedSession, Sessions

GAP_MS = 1_000
T = 1_000_000


def _at(*times: int, kind: Kind = Kind.VISIT, user: str = "ann") -> list[tuple[str, int, int]]:
    return [(user, int(kind), time_ms) for time_ms in times]


def test_events_a_gap_apart_are_one_session_and_a_moment_more_makes_two() -> None:
    sessions = Sessions(gap_ms=GAP_MS)

    sessions.fold(_at(T, T + GAP_MS, T + 2 * GAP_MS + 1))

    closed = sessions.close(T + 9 * GAP_MS)
    assert [(s.start_ms, s.end_ms, s.events) for s in closed] == [
        (T, T + GAP_MS, 2),
        (T + 2 * GAP_MS + 1, T + 2 * GAP_MS + 1, 1),
    ]


def test_a_late_event_joins_two_sessions() -> None:
    sessions = Sessions(gap_ms=GAP_MS)
    sessions.fold(_at(T, T + 2 * GAP_MS))
    apart = len(sessions)

    sessions.fold(_at(T + GAP_MS))

    assert (apart, len(sessions)) == (2, 1)
    assert sessions.latest(["ann"]) == [(T, T + 2 * GAP_MS, 0, 0)]


def test_a_late_event_before_all_others_makes_a_session_of_its_own() -> None:
    sessions = Sessions(gap_ms=GAP_MS)
    sessions.fold(_at(T + 5 * GAP_MS))

    sessions.fold(_at(T))

    assert [s.start_ms for s in sessions.close(T + GAP_MS + 1)] == [T]
    assert sessions.latest(["ann"]) == [(T + 5 * GAP_MS, T + 5 * GAP_MS, 0, 0)]


def test_a_session_closes_once_and_only_when_the_watermark_is_past_the_gap() -> None:
    sessions = Sessions(gap_ms=GAP_MS)
    sessions.fold(_at(T, kind=Kind.IMPRESSION))
    sessions.fold(_at(T + 1, kind=Kind.CLICK))
    sessions.fold(_at(T + 2, kind=Kind.PURCHASE))

    at_the_gap = sessions.close(T + 2 + GAP_MS)
    past_it = sessions.close(T + 3 + GAP_MS)
    again = sessions.close(T + 99 * GAP_MS)

    assert at_the_gap == []
    assert past_it == [ClosedSession("ann", T, T + 2, 3, 1, 1, 1)]
    assert again == []
    assert len(sessions) == 0


def test_users_do_not_share_sessions() -> None:
    sessions = Sessions(gap_ms=GAP_MS)

    active = sessions.fold([*_at(T), *_at(T, user="bob"), *_at(T)])

    assert active == ["ann", "bob"]
    assert [s.user_id for s in sessions.close(T + GAP_MS + 1)] == ["ann", "bob"]
