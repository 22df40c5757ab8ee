"""The traffic of a fault run: a function of the number of events and of the seed, to the byte.

Users visit, see slates, click, look, rate and buy over a day of event time: early, late and
repeated feedback, conversions about the end of their window, feedback of slates that never were.
Events reach the log shuffled within the lateness, some beyond it; some twice, with other
neighbours, and whole records twice; some break the contract, and some records are no records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from rankstream.contracts.ids import partition_of
from rankstream.pb import events_pb2 as pb
from tests.chaos.events import (
    CLICK,
    CONTEXT,
    IMPRESSION,
    PURCHASE,
    RATE,
    TICK,
    USER_UPDATE,
    VIEW,
    VISIT,
    Event,
    record_of,
)
from tests.chaos.reference import Windows

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
BASE_MS: Final = 1_750_000_000_000  # 2025-06-15T15:06:40Z: the same bytes whenever it runs
WINDOWS: Final = Windows(
    lateness_ms=10 * MINUTE_MS,
    click_window_ms=30 * MINUTE_MS,
    conversion_window_ms=2 * HOUR_MS,
    session_gap_ms=30 * MINUTE_MS,
    ahead_ms_max=60_000,
    behind_ms_max=50 * 365 * DAY_MS,
)
# When the day is over, all windows have closed.
END_MS: Final = BASE_MS + DAY_MS + 12 * HOUR_MS
HISTORY_UNTIL_MS: Final = BASE_MS - 4 * HOUR_MS
FUTURE_MS: Final = 4_000_000_000_000

EVENTS_PER_USER: Final = 50
EVENTS_PER_ITEM: Final = 300
CATEGORIES: Final = 60
QUERIES: Final = 200
LOCATIONS: Final = ("", "home", "search")
DUPLICATES: Final = 0.02
RECORDS_TWICE: Final = 0.01
LATE: Final = 0.01
REFUSED: Final = 0.002
RECORDS_BROKEN: Final = 0.002
# Most records hold one event, most events come in large records.
RECORD_SIZES: Final = (1, 10, 100, 400)
RECORD_WEIGHTS: Final = (90, 5, 4, 1)


@dataclass(frozen=True)
class Produced:
    """One record to append."""

    partition: int
    value: bytes
    events: int


@dataclass(frozen=True)
class Traffic:
    """Records of `events` in the order in which they are appended; (key, value) of `items`."""

    records: list[Produced]
    items: list[tuple[str, bytes]]

    @property
    def events(self) -> int:
        """Events in all records."""
        return sum(record.events for record in self.records)


def traffic(events: int, seed: int, partitions: int) -> Traffic:
    """So many events, those that are sent twice or refused included."""
    rng = Random(seed)
    world = _World(rng, max(20, events // EVENTS_PER_USER), max(50, events // EVENTS_PER_ITEM))
    sent = _sent(world, rng, events)
    lanes: list[list[tuple[int, Event]]] = [[] for _ in range(partitions)]
    for arrival_ms, _, event in sorted(sent):
        lanes[partition_of(event.user, partitions)].append((arrival_ms, event))
    arrivals = [
        (arrival_ms, number, record)
        for partition, lane in enumerate(lanes)
        for number, (arrival_ms, record) in enumerate(_records(lane, partition, rng))
    ]
    arrivals.sort(key=lambda arrival: (arrival[0], arrival[2].partition, arrival[1]))
    return Traffic([record for _, _, record in arrivals], list(world.items_described()))


def tick(partition: int, time_ms: int) -> bytes:
    """A record that says that nothing happened until then; END_MS closes every window."""
    return record_of([Event(TICK, partition.to_bytes(16, "big"), time_ms, "")])


class _World:
    """Who acts on what."""

    def __init__(self, rng: Random, users: int, items: int) -> None:
        self._rng = rng
        self._users = users
        self._items = items
        self._requests = 0

    def event(self, kind: int, time_ms: int, user: str, **fields: Any) -> Event:
        return Event(kind, self._rng.randbytes(16), time_ms, user, **fields)

    def user(self) -> str:
        return f"user-{int(self._users * self._rng.random() ** 2)}"

    def item(self) -> int:
        return int(self._items * self._rng.random() ** 3)

    def category(self, item: int) -> str:
        draw = self._rng.random()
        if draw < 0.97:
            return f"category-{item % CATEGORIES}"
        return "" if draw < 0.98 else f"category-{self._rng.randrange(CATEGORIES)}"

    def request(self) -> str:
        self._requests += 1
        return f"request-{self._requests}"

    def items_described(self) -> Iterator[tuple[str, bytes]]:
        """Metadata, a tenth of it more than once, and not always the newest last."""
        rng = self._rng
        for item in [*range(self._items), *rng.sample(range(self._items), self._items // 10)]:
            name = f"item-{item}"
            yield (
                name,
                pb.Item(
                    item_id=name,
                    category=self.category(item),
                    withdrawn=rng.random() < 0.05,
                    updated_ms=BASE_MS + rng.randrange(DAY_MS),
                    attributes={"year": 1990.0 + item % 30, "price": item % 100 / 4},
                    title=f"Item {item}",
                ).SerializeToString(deterministic=True),
            )

    def visit(self) -> Iterator[Event]:
        """One visit of one user."""
        rng, user = self._rng, self.user()
        time_ms = BASE_MS + rng.randrange(DAY_MS)
        yield self.event(VISIT, time_ms, user)
        if rng.random() < 0.05:
            known = (
                ("age", float(rng.randrange(18, 80))),
                ("gender_male", float(rng.random() < 0.5)),
            )
            yield self.event(USER_UPDATE, time_ms, user, attributes=known)
        if rng.random() < 0.1:
            around = (("temperature_c", rng.random() * 30), ("rain_mm_h", rng.random()))
            yield self.event(CONTEXT, time_ms, user, attributes=around)
            jam = (("traffic", rng.random()), ("rain_mm_h", rng.random()), ("moon", rng.random()))
            yield self.event(CONTEXT, time_ms + rng.randrange(2), user, attributes=jam)
        for _ in range(rng.randint(1, 3)):
            time_ms += rng.randrange(5 * SECOND_MS, 2 * MINUTE_MS)
            yield from self.slate(user, time_ms)
        if rng.random() < 0.1:
            about = self.about(self.item())
            yield self.event(PURCHASE, time_ms, user, **about, value=rng.randrange(9_000) / 100)

    def about(self, item: int) -> dict[str, Any]:
        return {"item": f"item-{item}", "category": self.category(item), **self.context()}

    def context(self) -> dict[str, str]:
        rng = self._rng
        return {
            "query": f"query-{rng.randrange(QUERIES)}" if rng.random() < 0.3 else "",
            "location": rng.choice(LOCATIONS),
        }

    def slate(self, user: str, time_ms: int) -> Iterator[Event]:
        rng, request = self._rng, self.request()
        for position in range(rng.randint(4, 8)):
            item = self.item()
            named = {"request": request, **self.about(item)}
            shown_ms = time_ms + position * rng.choice((0, 300))
            yield self.event(IMPRESSION, shown_ms, user, position=position, **named)
            if rng.random() < 0.02:
                again_ms = shown_ms + rng.randrange(HOUR_MS)
                named |= {"category": self.category(item), **self.context()}
                yield self.event(IMPRESSION, again_ms, user, position=position + 9, **named)
            if rng.random() < 0.2:
                yield from self.interest(user, shown_ms, item, named)
        if rng.random() < 0.02:
            lost = {"request": f"never-{request}", **self.about(self.item())}
            yield self.event(CLICK, time_ms, user, **lost)

    def interest(
        self, user: str, shown_ms: int, item: int, named: dict[str, Any]
    ) -> Iterator[Event]:
        """A click, and what follows it."""
        rng, edge_ms = self._rng, WINDOWS.click_window_ms
        after_ms = rng.choices(
            (
                rng.randrange(2 * MINUTE_MS),
                rng.randrange(edge_ms),
                rng.choice((0, edge_ms, edge_ms + 1)),
                edge_ms + rng.randrange(20 * MINUTE_MS),
                -rng.randrange(MINUTE_MS),
            ),
            (80, 10, 3, 4, 3),
        )[0]
        clicked_ms = shown_ms + after_ms
        yield self.event(CLICK, clicked_ms, user, **named)
        if rng.random() < 0.1:
            yield self.event(CLICK, clicked_ms + rng.randrange(MINUTE_MS), user, **named)
        about = {name: text for name, text in named.items() if name != "request"}
        if rng.random() < 0.5:
            dwell_ms = float(rng.randrange(120_000))
            yield self.event(
                VIEW, clicked_ms + rng.randrange(MINUTE_MS), user, **about, value=dwell_ms
            )
        if rng.random() < 0.15:
            value = float(rng.randint(1, 10)) / 2
            yield self.event(RATE, clicked_ms + rng.randrange(HOUR_MS), user, **about, value=value)
        if rng.random() < 0.3:
            end_ms = WINDOWS.conversion_window_ms
            wait_ms = rng.choices(
                (
                    rng.randrange(10 * MINUTE_MS),
                    rng.randrange(end_ms),
                    rng.choice((0, end_ms, end_ms + 1)),
                    end_ms + rng.randrange(20 * MINUTE_MS),
                ),
                (55, 35, 5, 5),
            )[0]
            value = rng.randrange(20_000) / 100
            yield self.event(PURCHASE, shown_ms + wait_ms, user, **named, value=value)


def _sent(world: _World, rng: Random, events: int) -> list[tuple[int, int, Event]]:
    """(arrival, number, event) of every event, and again of those that are sent twice."""
    lateness_ms = WINDOWS.lateness_ms
    sent: list[tuple[int, int, Event]] = []

    def send(event: Event, delay_ms: int) -> None:
        sent.append((event.time_ms + delay_ms, len(sent), event))

    while True:
        for event in world.visit():
            draw = rng.random()
            if draw < LATE:
                delay_ms = rng.randrange(lateness_ms, 4 * lateness_ms)
            elif draw < 0.2:
                delay_ms = rng.randrange(lateness_ms)
            else:
                delay_ms = rng.randrange(2 * SECOND_MS)
            if rng.random() < REFUSED:
                # In its place among the others, whatever time it claims.
                sent.append((event.time_ms + delay_ms, len(sent), _spoilt(event, rng)))
                continue
            send(event, delay_ms)
            if rng.random() < DUPLICATES:
                send(event, delay_ms + rng.randrange(2 * lateness_ms))
        if len(sent) >= events:
            return sent[:events]


def _spoilt(event: Event, rng: Random) -> Event:
    """The event, with one rule of the contract broken."""
    return event._replace(
        **rng.choice(
            (
                {"time_ms": FUTURE_MS},
                {"time_ms": SECOND_MS},
                {"kind": 77},
                {"kind": VIEW, "item": ""},
                {"kind": IMPRESSION, "item": "item-1", "request": ""},
                {"position": 20_000},
                {"value": float("nan")},
                {"value": 1e10},
                {"kind": PURCHASE, "item": "item-1", "value": -1.0},
                {"category": "a category of more than sixty-four bytes " * 2},
                {"query": "a query of more than a thousand characters " * 24},
                {"location": "a location of more than 256 characters " * 7},
                {"user": ""},
            )
        )
    )


def _records(
    lane: list[tuple[int, Event]], partition: int, rng: Random
) -> Iterator[tuple[int, Produced]]:
    """(arrival, record), cut at random."""
    start = 0
    while start < len(lane):
        size = rng.choices(RECORD_SIZES, RECORD_WEIGHTS)[0]
        size = size if size == 1 else rng.randint(2, 2 * size)
        part = lane[start : start + size]
        start += size
        arrival_ms = part[-1][0]
        record = Produced(partition, record_of([event for _, event in part]), len(part))
        yield arrival_ms, record
        draw = rng.random()
        if draw < RECORDS_TWICE:
            yield arrival_ms + rng.randrange(MINUTE_MS), record
        elif draw < RECORDS_TWICE + RECORDS_BROKEN:
            yield arrival_ms, Produced(partition, rng.choice((b"", b"\xff\xff not a batch")), 1)
