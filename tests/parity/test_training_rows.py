"""Training rows equal what the live stream holds, bit for bit."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from pipelines.features.replay import ItemFacts, Windows, training_rows
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.contracts.columns import EventColumns
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.ids import id64
from rankstream.stream.partition import FoldSettings
from tests.parity.events import START_MS, an_event
from tests.parity.stream import Stream

CATEGORIES = ("drama", "war", "noir")
ITEMS = [
    ItemUpdate(
        item_id=f"i{k}",
        category=CATEGORIES[k % 3],
        updated_ms=START_MS,
        attributes={"year": 1950.0 + k} if k % 2 else {},
    )
    for k in range(7)
]


KINDS = ("impression", "click", "rate", "purchase", "view", "visit", "user", "context")


def a_log(seed: int, n: int = 400) -> list[Event]:
    """Events of four users in order of time, with ties, gaps that end sessions, and repeats."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    after_ms = 0
    for k in range(n):
        after_ms += int(rng.choice([0, 1, 900, 40_000, 2_000_000, 9_000_000]))
        item = ITEMS[rng.integers(len(ITEMS))]
        user = f"u{rng.integers(4)}"
        about = {
            "user": user,
            "item_id": item.item_id,
            "category": item.category,
            "query": str(rng.choice(["", "war", "peace"])),
            "location": str(rng.choice(["", "home", "war"])),
        }
        request = f"r{k // 15}-{rng.integers(3)}"
        kind = str(rng.choice(KINDS))
        if kind in ("impression", "click"):
            events.append(an_event(kind, k, after_ms=after_ms, request_id=request, **about))
        elif kind == "user":
            age = {"age": float(rng.integers(20, 60)), "city": "Oslo"}
            events.append(an_event("user_update", k, after_ms=after_ms, user=user, attributes=age))
        elif kind == "context":
            around = {"temperature_c": float(rng.integers(-9, 30)), "traffic": float(rng.random())}
            event = an_event(kind, k, after_ms=after_ms, user=user, attributes=around)
            events.append(event)
        elif kind == "visit":
            events.append(an_event(kind, k, after_ms=after_ms, user=user))
        else:
            value = float(rng.integers(1, 6))
            events.append(an_event(kind, k, after_ms=after_ms, value=value, **about))
    return events


def columns_of(events: list[Event]) -> EventColumns:
    return decode_batch(encode_batch(events))


@pytest.mark.parametrize("seed", range(4))
def test_a_training_row_is_what_the_live_stream_would_have_served(seed: int) -> None:
    events = a_log(seed)
    live = Stream(FoldSettings())
    live.describe(ITEMS)
    expected: dict[tuple[str, str, int], bytes] = {}
    for time_ms, group in groupby(events, key=lambda event: event.event_time_ms):
        together = list(group)
        for event in together:
            if event.kind == "impression":
                named = {"query": event.query, "location": event.location}
                vector = live.features(event.user_id, event.item_id, time_ms, **named)
                expected[event.user_id, event.item_id, time_ms] = vector.tobytes()
        live.send(together)
    shuffled = [events[k] for k in np.random.default_rng(seed).permutation(len(events))]
    until_ms = events[-1].event_time_ms + 86_400_000

    rows = training_rows(
        # The lake is not in order of event time, and may hold an event twice.
        columns_of([*sorted(shuffled, key=lambda e: -e.event_time_ms), *shuffled[:20]]),
        {item.item_id: ItemFacts(item.category, item.attributes) for item in ITEMS},
        until_ms=until_ms,
        windows=Windows(),
    )

    live.tick(until_ms + 10 * 86_400_000)
    assert len(rows) == len(live.labels) > 30
    for k in range(len(rows)):
        key = rows.users[rows.user[k]], rows.items[rows.item[k]], int(rows.time_ms[k])
        assert rows.features[k].tobytes() == expected[key], key
    clicked = sorted((label[4], label[1]) for label in live.labels.values())
    assert sorted(zip(rows.time_ms.tolist(), rows.clicked.tolist(), strict=True)) == clicked
    assert set(rows.recent.ravel().tolist()) <= {0, *(id64(item.item_id) for item in ITEMS)}
