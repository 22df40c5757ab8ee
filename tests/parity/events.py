"""Events for tests of the stream: every field given but those under test."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rankstream.contracts.events import MESSAGE, Event, ItemUpdate

START_MS = 1_700_000_000_000


def an_event(kind: str, n: int, *, after_ms: int = 0, user: str = "ann", **fields: Any) -> Event:
    """The event numbered `n`, `after_ms` after the start of the test's time."""
    needs: dict[str, dict[str, Any]] = {
        "impression": {"item_id": "i0", "request_id": "r0", "position": 0},
        "click": {"item_id": "i0", "request_id": "r0"},
        "purchase": {"item_id": "i0", "value": 1.0},
        "rate": {"item_id": "i0", "value": 4.0},
        "view": {"item_id": "i0"},
        "user_update": {"attributes": {}},
        "context": {"attributes": {}},
    }
    event = MESSAGE.validate_python(
        {
            "kind": kind,
            "event_id": str(UUID(int=n)),
            "user_id": user,
            "event_time_ms": START_MS + after_ms,
            **needs.get(kind, {}),
            **fields,
        }
    )
    assert not isinstance(event, ItemUpdate)
    return event
