"""Events as a shop would send them, and the records that carry them: seeded, by column.

Slates of impressions at random times; some are clicked, what is clicked is viewed, a few views end
in a purchase or a rating. With ten impressions a slate, 75 % of the events are impressions. Users
and items are drawn with Zipf-like weights. Nothing here reads a clock or touches a network.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import partition_of
from rankstream.pb import events_pb2 as pb

Ints = npt.NDArray[np.int64]

CLICK_SHARE: Final = 0.15  # of impressions
PURCHASE_SHARE: Final = 0.10  # of clicks
RATE_SHARE: Final = 0.02  # of impressions
CLICK_AFTER_MS: Final = 300_000.0  # mean, as the next three
VIEW_AFTER_MS: Final = 1_000.0
PURCHASE_AFTER_MS: Final = 1_800_000.0
RATE_AFTER_MS: Final = 3_600_000.0
# Everything that a slate causes happens within so long; under the default conversion window.
AFTER_MS_MAX: Final = 6 * 3_600_000
# From event time to the log: mean of an exponential, far below the default lateness. The
# impressions of a slate travel together.
ARRIVAL_MS: Final = 2_000.0
# Rank at which the weights 1 / (rank + head) bend: the first user has 1.4 % of 10^4 users' slates.
ZIPF_HEAD: Final = 10.0
# One record in so many is sent twice, as a producer that retries does.
REPEAT_EVERY: Final = 100


@dataclass(frozen=True)
class Traffic:
    """What to draw. Events lie in (end_ms - span_ms, end_ms]."""

    events: int
    users: int = 10_000
    items: int = 20_000
    categories: int = 50
    impressions_per_slate: int = 10
    span_ms: int = 48 * 3_600_000
    end_ms: int = 0
    seed: int = 1
    # Have each user appear at least once, which takes a slate each.
    every_user: bool = False


@dataclass(frozen=True)
class Events:
    """Drawn events in the order of their arrival, all columns of shape (n,)."""

    kind: Ints
    user: Ints
    item: Ints
    slate: Ints  # number of the slate, unique under one seed; -1 for ratings, which name none
    position: Ints
    time_ms: Ints
    value: npt.NDArray[np.float64]
    categories: int
    seed: int

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """One record of topic `events`."""

    partition: int
    events: int
    value: bytes


def draw(traffic: Traffic) -> Events:
    """About `traffic.events` events."""
    rng = np.random.default_rng(traffic.seed)
    per_impression = 1 + CLICK_SHARE * (2 + PURCHASE_SHARE) + RATE_SHARE
    slates = max(1, round(traffic.events / per_impression / traffic.impressions_per_slate))
    if traffic.every_user:
        slates = max(slates, traffic.users)
    users = _zipf(rng, traffic.users, slates)
    if traffic.every_user:
        users[: traffic.users] = rng.permutation(traffic.users)
    rng.shuffle(users)
    first_ms, width = traffic.end_ms - traffic.span_ms, traffic.impressions_per_slate
    last_ms = max(first_ms + 1, traffic.end_ms - AFTER_MS_MAX)
    began = np.sort(rng.integers(first_ms, last_ms, slates))
    shown = _Rows(
        user=np.repeat(users, width),
        item=_zipf(rng, traffic.items, slates * width),
        slate=np.repeat(np.arange(slates), width),
        position=np.tile(np.arange(width), slates),
        time_ms=np.repeat(began, width),
    )
    clicked = shown.some(rng, CLICK_SHARE, CLICK_AFTER_MS)
    bought = clicked.some(rng, PURCHASE_SHARE, PURCHASE_AFTER_MS)
    rated = shown.some(rng, RATE_SHARE, RATE_AFTER_MS)
    viewed = clicked.some(rng, 1.0, VIEW_AFTER_MS)
    parts = [
        (Kind.IMPRESSION, shown, np.zeros(len(shown.user))),
        (Kind.CLICK, clicked, np.zeros(len(clicked.user))),
        (Kind.VIEW, viewed, np.round(rng.exponential(20_000, len(viewed.user)))),
        (Kind.PURCHASE, bought, np.round(rng.lognormal(3, 1, len(bought.user)), 2)),
        (Kind.RATE, rated, rng.integers(1, 6, len(rated.user)).astype(float)),
    ]
    time_ms = np.concatenate([rows.time_ms for _, rows, _ in parts])
    kind = np.concatenate([np.full(len(rows.user), number) for number, rows, _ in parts])
    slate = np.concatenate([rows.slate for _, rows, _ in parts])
    delay_ms = rng.exponential(ARRIVAL_MS, len(time_ms))
    delay_ms[: slates * width] = np.repeat(rng.exponential(ARRIVAL_MS, slates), width)
    order = np.argsort(time_ms + delay_ms, kind="stable")
    return Events(
        kind=kind[order],
        user=np.concatenate([rows.user for _, rows, _ in parts])[order],
        item=np.concatenate([rows.item for _, rows, _ in parts])[order],
        slate=np.where(kind == Kind.RATE, -1, slate)[order],
        position=np.concatenate([rows.position for _, rows, _ in parts])[order],
        time_ms=time_ms[order],
        value=np.concatenate([value for _, _, value in parts])[order],
        categories=traffic.categories,
        seed=traffic.seed,
    )


@dataclass(frozen=True)
class _Rows:
    user: Ints
    item: Ints
    slate: Ints
    position: Ints
    time_ms: Ints

    def some(self, rng: np.random.Generator, share: float, after_ms: float) -> _Rows:
        """A random share of the rows, each some time later."""
        chosen = np.flatnonzero(rng.random(len(self.user)) < share)
        later = np.minimum(rng.exponential(after_ms, len(chosen)), AFTER_MS_MAX / 4)
        return _Rows(
            self.user[chosen],
            self.item[chosen],
            self.slate[chosen],
            self.position[chosen],
            self.time_ms[chosen] + later.astype(np.int64),
        )


def _zipf(rng: np.random.Generator, size: int, n: int) -> Ints:
    """n numbers below `size`, the r-th with weight 1 / (r + ZIPF_HEAD)."""
    cumulated = np.cumsum(1.0 / (np.arange(size) + ZIPF_HEAD))
    drawn: Ints = np.searchsorted(cumulated, rng.random(n) * cumulated[-1])
    return drawn


def user_id(number: int) -> str:
    return f"user-{number:08d}"


def item_id(number: int) -> str:
    return f"item-{number:08d}"


def category_of(item: int, categories: int) -> str:
    return f"category-{item % categories}"


def request_id(seed: int, slate: int) -> str:
    """As long as the ranker's own, which are UUIDs."""
    return f"019a0000-{seed & 0xFFFF:04x}-7000-8000-{slate:012x}"


def chunks(events: Events, *, partitions: int, size: int) -> list[tuple[int, npt.NDArray[np.intp]]]:
    """(partition, rows) of each record of `size` events (a partition's last may hold fewer), in
    the order in which the records are complete.
    """
    users, code = np.unique(events.user, return_inverse=True)
    target = np.array([partition_of(user_id(int(user)), partitions) for user in users])[code]
    found = []
    for partition in range(partitions):
        mine = np.flatnonzero(target == partition)
        found += [(partition, mine[i : i + size]) for i in range(0, len(mine), size)]
    return sorted(found, key=lambda chunk: int(chunk[1][-1]))


def records(events: Events, *, partitions: int, size: int) -> Iterator[LoadRecord]:
    """The records of topic `events`, one in REPEAT_EVERY of them twice."""
    ids = np.random.default_rng(events.seed ^ 0x1D).bytes(16 * len(events))
    cut = chunks(events, partitions=partitions, size=size)
    for number, (partition, rows) in enumerate(cut):
        value = _one(events, ids, int(rows[0])) if size == 1 else _batch(events, ids, rows)
        record = LoadRecord(partition, len(rows), value)
        yield record
        if number % REPEAT_EVERY == REPEAT_EVERY - 1:
            yield record


def _one(events: Events, ids: bytes, row: int) -> bytes:
    kind, value = int(events.kind[row]), float(events.value[row])
    item, slate = int(events.item[row]), int(events.slate[row])
    user, category = user_id(int(events.user[row])), category_of(item, events.categories)
    view = pb.EventBatchView(
        strings=["", user, item_id(item), category],
        kind=bytes((kind,)),
        event_id=ids[16 * row : 16 * row + 16],
        event_time_ms=int(events.time_ms[row]).to_bytes(8, "little"),
        user_id=b"\1\0\0\0",
        item_id=b"\2\0\0\0",
        category=b"\3\0\0\0",
    )
    if slate >= 0:
        view.strings.append(request_id(events.seed, slate))
        view.request_id = b"\4\0\0\0"
    if kind == Kind.IMPRESSION:
        view.position = int(events.position[row]).to_bytes(4, "little")
    if value:
        view.value = struct.pack("<d", value)
    return view.SerializeToString()


def _batch(events: Events, ids: bytes, rows: npt.NDArray[np.intp]) -> bytes:
    item = events.item[rows]
    columns: Mapping[str, tuple[Ints, Callable[[int], str]]] = {
        "user_id": (events.user[rows], user_id),
        "item_id": (item, item_id),
        "request_id": (events.slate[rows], lambda slate: request_id(events.seed, slate)),
        "category": (item % events.categories, lambda one: category_of(one, events.categories)),
    }
    view, strings = pb.EventBatchView(), [""]
    for name, (numbers, text_of) in columns.items():
        named, index = numbers >= 0, np.zeros(len(rows), "<u4")
        used, code = np.unique(numbers[named], return_inverse=True)
        index[named] = code + len(strings)
        setattr(view, name, index.tobytes())
        strings += [text_of(number) for number in used.tolist()]
    view.strings.extend(strings)
    view.kind = events.kind[rows].astype(np.uint8).tobytes()
    view.event_id = b"".join([ids[16 * row : 16 * row + 16] for row in rows.tolist()])
    view.event_time_ms = events.time_ms[rows].astype("<i8").tobytes()
    view.position = events.position[rows].astype("<i4").tobytes()
    view.value = events.value[rows].astype("<f8").tobytes()
    return view.SerializeToString()
