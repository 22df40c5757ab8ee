"""What is the same in all of them: the command line, and sessions and the join of one user."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TOPIC: Final = "peer-events"
SESSIONS: Final = "peer-sessions"
LABELS: Final = "peer-labels"
# Faust stumbles over the topics of its tables unless they are there before it starts.
CHANGELOGS: Final = tuple(
    f"peer-faust-{table}-changelog" for table in ("sessions", "shown", "items", "categories")
)
PARTITIONS: Final = 8
GAP_MS: Final = 1_800_000
CLICK_WINDOW_MS: Final = 1_800_000
COUNT_WINDOW_S: Final = 3_600
# Partitions are read at different paces: how far one may lag behind another in event time.
GRACE_S: Final = 7_200

Event = dict[str, Any]  # kind, user, item, category, request, time_ms, value
Session = list[int]  # first ms, last ms, events
Shown = dict[str, int]  # request and item -> ms


@dataclass(frozen=True)
class Arguments:
    """Where to read, how much is there, and where to write what it took."""

    kafka: str
    events: int
    state: Path
    out: Path


def arguments() -> Arguments:
    """From the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return Arguments(**vars(parser.parse_args()))


def in_session(session: Session | None, time_ms: int) -> tuple[Session, Session | None]:
    """The session that goes on, and the one that has ended, if one has."""
    if session is None:
        return [time_ms, time_ms, 1], None
    first_ms, last_ms, events = session
    if time_ms - last_ms > GAP_MS:
        return [time_ms, time_ms, 1], session
    return [first_ms, max(last_ms, time_ms), events + 1], None


def joined(shown: Shown, event: Event) -> Event | None:
    """Take the event in; a label if it is a click on what was shown. Forgets what is too old."""
    if event["kind"] not in ("impression", "click"):
        return None
    time_ms, place = event["time_ms"], f"{event['request']} {event['item']}"
    if event["kind"] == "impression":
        for old in [key for key, at_ms in shown.items() if time_ms - at_ms > CLICK_WINDOW_MS]:
            del shown[old]
        shown[place] = time_ms
        return None
    at_ms = shown.get(place)
    if at_ms is None or time_ms - at_ms > CLICK_WINDOW_MS:
        return None
    return {"user": event["user"], "place": place, "shown_ms": at_ms, "clicked_ms": time_ms}
