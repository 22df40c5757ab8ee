"""Traffic whose users and items come, stay for a while, and never come back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rankstream.client import LogProducer
from rankstream.contracts.events import Click, Event, Impression
from rankstream.contracts.ids import new_id

TICK_S = 0.2
CLICKS = 0.2
CATEGORIES = 20


@dataclass(frozen=True)
class Load:
    """Events and new keys per second, and how many of each are about at a time."""

    events_per_s: int = 500
    users_per_s: int = 300
    items_per_s: int = 20
    users: int = 1_000
    items: int = 500


def events_at(load: Load, elapsed_s: float, now_ms: int, rng: random.Random) -> list[Event]:
    """What happens in one tick, `elapsed_s` after the start."""
    first_user, first_item = users_made(load, elapsed_s) - load.users, items_made(load, elapsed_s)
    events: list[Event] = []
    while len(events) < load.events_per_s * TICK_S:
        item = first_item - 1 - rng.randrange(load.items)
        about: dict[str, Any] = {
            "user_id": f"user-{first_user + rng.randrange(load.users)}",
            "item_id": f"item-{item}",
            "category": f"category-{item % CATEGORIES}",
            "request_id": new_id(),
            "event_time_ms": now_ms,
        }
        events.append(Impression(event_id=new_id(), position=0, **about))
        if rng.random() < CLICKS:
            events.append(Click(event_id=new_id(), **about))
    return events


def users_made(load: Load, elapsed_s: float) -> int:
    """Users that have come so far; the newest `load.users` of them are about."""
    return load.users + int(elapsed_s * load.users_per_s)


def items_made(load: Load, elapsed_s: float) -> int:
    """As users_made."""
    return load.items + int(elapsed_s * load.items_per_s)


class Sender:
    """Sends the load to Kafka from a thread of its own, at its rate, until stopped."""

    def __init__(self, kafka_url: str, load: Load, *, now_ms: Callable[[], int]) -> None:
        self._load = load
        self._now_ms = now_ms
        self._kafka_url = kafka_url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._error: BaseException | None = None
        self.sent = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; raises what ended the thread before, if anything did."""
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        rng, began_s = random.Random(7), time.monotonic()
        try:
            with LogProducer(self._kafka_url) as log:
                while not self._stopping.wait(TICK_S):
                    elapsed_s = time.monotonic() - began_s
                    self.sent += log.send(events_at(self._load, elapsed_s, self._now_ms(), rng))
        except BaseException as error:
            self._error = error
            raise
