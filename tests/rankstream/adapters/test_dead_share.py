"""The limit on refused events."""

from __future__ import annotations

import pytest

from rankstream.adapters.dead_share import DeadShare
from rankstream.errors import TooManyDeadLetters


def test_a_window_over_the_limit_stops() -> None:
    share = DeadShare(share_max=0.1, window_events=100)
    share.add(60, 8)

    with pytest.raises(TooManyDeadLetters, match=r"11 of 100 events refused \(0.110, limit 0.1\)"):
        share.add(40, 3)


def test_windows_at_the_limit_go_on() -> None:
    share = DeadShare(share_max=0.1, window_events=100)

    for _ in range(50):
        share.add(10, 1)


def test_a_window_not_full_is_not_judged() -> None:
    share = DeadShare(share_max=0.1, window_events=100)

    share.add(99, 99)
