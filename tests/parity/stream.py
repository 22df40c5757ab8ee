"""Both stages run over a log cut into records, with restarts, as the service would run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from uuid import UUID

import numpy as np
import numpy.typing as npt

from rankstream.contracts.codec import encode_batch, encode_item, encode_tick
from rankstream.contracts.events import Event, ItemUpdate
from rankstream.contracts.ids import partition_of
from rankstream.contracts.record import Record
from rankstream.features.deltas import Entity
from rankstream.features.expiry import STATE_TTL_MS
from rankstream.features.items import ROWS
from rankstream.features.rows import USER_ROW, Rows, empty_rows
from rankstream.features.snapshot import snapshot
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition
from rankstream.stream.partition import FoldSettings, Outputs, UserPartition
from tests.parity.events import START_MS

# The broker's clock: a constant, so that only event time can decide anything.
APPEND_MS = START_MS + 30 * 86_400_000
PARTITIONS = 3

LabelRow = tuple[int, int, int, int, int, int]  # status, clicked, purchased, value, time, position


class Stream:
    """One partition of events and all partitions of items, with what they put out so far."""

    def __init__(self, settings: FoldSettings, *, items_ttl_ms: int = STATE_TTL_MS) -> None:
        self._settings = settings
        self._items_ttl_ms = items_ttl_ms
        self.users = UserPartition(1, PARTITIONS, settings)
        self.items = [ItemPartition(partition, items_ttl_ms) for partition in range(PARTITIONS)]
        self.labels: dict[tuple[str, str, str], LabelRow] = {}
        self.finals: Counter[tuple[str, str, str]] = Counter()
        self.sessions: list[pb.Session] = []
        self.unmatched: list[pb.DeadLetter] = []
        self.dead: list[pb.DeadLetter] = []
        self.counts: Counter[str] = Counter()
        self.raw: list[bytes] = []

    def send(self, events: Sequence[Event]) -> Outputs:
        return self.record(encode_batch(events))

    def tick(self, time_ms: int) -> Outputs:
        return self.record(encode_tick(str(UUID(int=time_ms)), time_ms))

    def record(self, record: bytes) -> Outputs:
        return self.run([record])

    def run(self, records: Sequence[bytes]) -> Outputs:
        """Fold records at one go."""
        before_ms, offset = self.users.watermark_ms, self.users.offset + 1
        out = self.users.fold(
            [
                Record("events", 1, offset + place, APPEND_MS, b"", record)
                for place, record in enumerate(records)
            ]
        )
        assert out.watermark_ms >= before_ms
        for target, updates in out.updates.items():
            items = self.items[target]
            items.fold_updates(
                [Record("feature-updates", target, items.offset + 1, APPEND_MS, b"", updates)]
            )
            self.raw.append(updates)
        if out.label_batch is not None:
            self._fold_labels(pb.LabelBatch.FromString(out.label_batch))
            self.raw.append(out.label_batch)
        self.sessions += [pb.Session.FromString(session) for session in out.sessions]
        self.unmatched += [pb.DeadLetter.FromString(dead) for dead in out.unmatched]
        self.dead += [pb.DeadLetter.FromString(dead) for dead in out.dead]
        self.raw += [*out.sessions, *out.unmatched, *out.dead]
        self.counts.update(vars(out.counts))
        return out

    def describe(self, items: Iterable[ItemUpdate]) -> None:
        for item in items:
            number = partition_of(item.item_id, PARTITIONS)
            partition, value = self.items[number], encode_item(item)
            partition.fold_items(
                [Record("items", number, partition.items_offset + 1, APPEND_MS, b"", value)]
            )

    def restart(self) -> None:
        """Go on in fresh objects from dumps of the old."""
        users = UserPartition(1, PARTITIONS, self._settings)
        users.load(b"".join(self.users.dump()))
        self.users = users
        fresh = [ItemPartition(partition, self._items_ttl_ms) for partition in range(PARTITIONS)]
        for new, old in zip(fresh, self.items, strict=True):
            new.load(b"".join(old.dump()))
        self.items = fresh

    def _fold_labels(self, batch: pb.LabelBatch) -> None:
        for i, user in enumerate(batch.user_id):
            strings = batch.strings
            key = (strings[user], strings[batch.request_id[i]], strings[batch.item_id[i]])
            old = (
                batch.old_status[i],
                batch.old_clicked[i],
                batch.old_purchased[i],
                batch.old_value_micros[i],
            )
            assert self.labels.get(key, (0, 0, 0, 0))[:4] == old
            self.labels[key] = (
                batch.new_status[i],
                batch.new_clicked[i],
                batch.new_purchased[i],
                batch.new_value_micros[i],
                batch.impression_time_ms[i],
                batch.position[i],
            )
            self.finals[key] += batch.new_status[i] == pb.LABEL_FINAL

    def features(
        self, user: str, item: str, as_of_ms: int, *, query: str = "", location: str = ""
    ) -> npt.NDArray[np.float32]:
        """The vector that a ranker would score, shape (width,)."""
        users = self.user(user)
        items = self.row(Entity.ITEM, item)
        categories = self.row(Entity.CATEGORY, items["category"][0].decode())
        context = np.stack(
            [self.row(Entity.QUERY, query), self.row(Entity.LOCATION, location)], axis=1
        )
        vectors = snapshot(users, items, categories, context, np.array([as_of_ms]))
        return vectors.reshape(-1)

    def user(self, user: str) -> Rows:
        """The row of a user, shape (1,); of an unknown one the empty row."""
        return _rows(self.users.rows([user]), USER_ROW)

    def row(self, entity: Entity, key: str) -> Rows:
        """The row of a key, shape (1,); of an unknown one the empty row."""
        return _rows(self._owner(key).rows(entity, [key]), ROWS[entity])

    def _owner(self, key: str) -> ItemPartition:
        return self.items[partition_of(key, PARTITIONS)]


def _rows(found: Sequence[tuple[str, bytes]], dtype: np.dtype[np.void]) -> Rows:
    if not found:
        return empty_rows(1, dtype)
    return np.frombuffer(found[0][1], dtype)
