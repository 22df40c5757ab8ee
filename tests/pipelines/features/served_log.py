"""A log in memory: what the stream folded, and slates served while it did, stamped as a ranker's.

It holds what a replay must take as the stream does: repeats, late events, a record that nobody can
decode, updates sent twice, items described anew, and records after the last slate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.contracts.codec import encode_batch, encode_item
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.ids import partition_of
from rankstream.features import spec
from rankstream.features.deltas import Entity
from rankstream.features.rows import USER_ROW, Rows
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition
from rankstream.stream.partition import FoldSettings
from tests.parity.events import START_MS, an_event
from tests.parity.stream import APPEND_MS, PARTITIONS, Stream

GARBAGE = b"\xff\xff\xff"
MINUTE_MS = 60_000
ABOUT = {"category": "war", "query": "war films", "location": "home"}


class ServedLog:
    """Topics `events`, `feature-updates` and `items` as the stream read them, and the slates."""

    def __init__(self, settings: FoldSettings) -> None:
        self._stream = Stream(settings)
        self._records: dict[str, list[Record]] = defaultdict(list)
        self.slates: list[pb.ServedSlate] = []

    def _append(self, topic: str, partition: int, offset: int, value: bytes) -> None:
        self._records[topic].append(Record(topic, partition, offset, APPEND_MS, b"", value))

    def send(self, events: Sequence[Event]) -> None:
        """Fold one record of events; all updates that it makes are sent twice."""
        record = encode_batch(events)
        out = self._stream.record(record)
        self._append(topics.EVENTS.name, 1, self._stream.users.offset, record)
        for target, updates in out.updates.items():
            items = self._stream.items[target]
            self._append(topics.FEATURE_UPDATES.name, target, items.offset, updates)
            name = topics.FEATURE_UPDATES.name
            self._append(name, target, items.offset + 1, updates)
            assert items.fold_updates(self._records[name][-1:]).duplicates == 1

    def send_garbage(self) -> None:
        """One record in `events`, `feature-updates` and `items` that is none."""
        users, items = self._stream.users, self._stream.items[0]
        self._stream.record(GARBAGE)
        self._append(topics.EVENTS.name, 1, users.offset, GARBAGE)
        name = topics.FEATURE_UPDATES.name
        self._append(name, 0, items.offset + 1, GARBAGE)
        assert items.fold_updates(self._records[name][-1:]).refused
        # A replay reads no more of `items` than what the stamps name.
        self._append(topics.ITEMS.name, 0, 1_000, GARBAGE)

    def describe(self, item: ItemUpdate) -> None:
        """Fold one record of items."""
        self._stream.describe([item])
        owner, partition = self._owner(item.item_id)
        self._append(topics.ITEMS.name, partition, owner.items_offset, encode_item(item))

    def serve(self, user: str, item: str, as_of_ms: int, *, query: str, location: str) -> None:
        """A slate of one known item for a known user, as of now."""
        users = _one(self._stream.users.rows([user]), USER_ROW)
        items = self._stream.row(Entity.ITEM, item)
        category = items["category"][0].decode()
        vector = self._stream.features(user, item, as_of_ms, query=query, location=location)
        self.slates.append(
            pb.ServedSlate(
                request_id=f"s{len(self.slates)}",
                user_id=user,
                served_time_ms=as_of_ms,
                item_id=[item],
                category=[category],
                features=vector.astype("<f4").tobytes(),
                spec_id=spec.SPEC_ID,
                user_stamp=_stamp(users),
                item_stamp=[_stamp(items)],
                category_stamp=[_stamp(self._stream.row(Entity.CATEGORY, category))],
                query=query,
                location=location,
                query_stamp=_stamp(self._stream.row(Entity.QUERY, query)),
                location_stamp=_stamp(self._stream.row(Entity.LOCATION, location)),
            )
        )

    def _owner(self, key: str) -> tuple[ItemPartition, int]:
        partition = partition_of(key, PARTITIONS)
        return self._stream.items[partition], partition

    def reader(self, bootstrap: str, topic_names: Sequence[str], *, client_id: str) -> Reader:
        """Stands in for LogReader."""
        records = [record for name in topic_names for record in self._records[name]]
        if topics.SERVED.name in topic_names:
            records += [
                Record(topics.SERVED.name, 0, k, APPEND_MS, b"", slate.SerializeToString())
                for k, slate in enumerate(self.slates)
            ]
        return Reader(records)


class Reader:
    """Returns some records, then is caught up."""

    def __init__(self, records: list[Record]) -> None:
        self._left = records

    @property
    def caught_up(self) -> bool:
        """Whether all were returned."""
        return not self._left

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """The next few; less than asked for, so that a replay needs many polls."""
        polled, self._left = self._left[:7], self._left[7:]
        return polled

    def lag(self) -> dict[tuple[str, int], int]:
        """Records left, as of one partition."""
        return {("served", 0): len(self._left)}

    async def close(self) -> None:
        """Nothing to leave."""


def _one(found: Sequence[tuple[str, bytes]], dtype: np.dtype[np.void]) -> Rows:
    ((_, packed),) = found
    return np.frombuffer(packed, dtype)


def _stamp(row: Rows) -> pb.Stamp:
    of_items = "items_offset" in (row.dtype.names or ())
    return pb.Stamp(
        partition=int(row["partition"][0]),
        offset=int(row["offset"][0]),
        items_offset=int(row["items_offset"][0]) if of_items else -1,
    )


def a_served_log(settings: FoldSettings) -> ServedLog:
    """Two users and three items; a slate after every third record, and records after the last.

    The last slate is for ann and i0, which every record feeds and whose year just changed, so that
    each of its stamps has a record before it that left something else.
    """
    log, rng = ServedLog(settings), np.random.default_rng(5)
    item_ids, sent = ["i0", "i1", "i2"], list[Event]()
    for k, item_id in enumerate(item_ids):
        log.describe(_item(item_id, year=1950 + k, at_ms=0))
    for k in range(60):
        now_ms = k * MINUTE_MS
        events = [
            _impression(10 * k, "ann", "i0", now_ms),
            _impression(10 * k + 1, "bob", item_ids[k % 3], now_ms),
            an_event("visit", 10 * k + 2, after_ms=now_ms),
        ]
        if k % 2:
            own = {"item_id": "i0", **ABOUT, "request_id": f"r{10 * k}"}
            events.append(an_event("click", 10 * k + 3, after_ms=now_ms + 5, **own))
        if k % 8 == 0 and k < 20:  # later slates find the traffic too old
            around = {"rain_mm_h": k / 8, "traffic": 0.5}
            events.append(
                an_event("context", 10 * k + 5, user="bob", after_ms=now_ms, attributes=around)
            )
        if k > 30:  # behind the watermark, by the default lateness
            events.append(_impression(10 * k + 4, "ann", "i1", now_ms - 20 * MINUTE_MS))
        again = [sent[at] for at in rng.integers(0, len(sent), 2)] if sent else []
        log.send([*events, *again])
        sent += events
        if k == 20:
            log.send_garbage()
        if k == 40:
            log.describe(_item("i0", year=1999, at_ms=now_ms))
        if k % 3 == 2 and k < 50:
            user = "ann" if k == 47 else "bob"
            query = "war films" if k > 10 else "new"
            log.serve(user, "i0", START_MS + now_ms + 1_000, query=query, location="home")
    return log


def _item(item_id: str, *, year: int, at_ms: int) -> ItemUpdate:
    return ItemUpdate(
        item_id=item_id,
        category="war",
        updated_ms=START_MS + at_ms,
        attributes={"year": float(year)},
    )


def _impression(n: int, user: str, item: str, after_ms: int) -> Event:
    about = {"item_id": item, **ABOUT, "request_id": f"r{n}"}
    return an_event("impression", n, after_ms=after_ms, user=user, **about)
