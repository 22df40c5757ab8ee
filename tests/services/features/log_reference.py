"""What the log says, computed in one process and one thread: what the service must arrive at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.log_range import PartitionLog
from rankstream.contracts.high_water import HighWater
from rankstream.features.deltas import Entity
from rankstream.features.items import ROWS
from rankstream.features.rows import CATEGORY_ROW, ITEM_ROW, USER_ROW, Rows
from rankstream.pb import events_pb2 as pb
from rankstream.stream.items import ItemPartition
from rankstream.stream.partition import FoldSettings, UserPartition

Label = tuple[int, int, int, int]  # status, clicked, purchased, value_micros


def read_log(bootstrap: str, topic: topics.Topic) -> dict[int, list[Record]]:
    """Every record of a topic, by partition."""

    async def read(partition: int) -> list[Record]:
        log = PartitionLog(bootstrap, topic.name, partition, client_id="test")
        return [record async for portion in log.read(0) for record in portion]

    async def every() -> dict[int, list[Record]]:
        return {partition: await read(partition) for partition in range(topic.partitions)}

    return asyncio.run(every())


@dataclass
class Expected:
    """Rows by id, stamps blanked where they depend on repeated sends; labels by key."""

    users: dict[str, bytes] = field(default_factory=dict)
    keys: dict[Entity, dict[str, bytes]] = field(
        default_factory=lambda: {entity: {} for entity in Entity}
    )
    labels: dict[tuple[str, str, str], Label] = field(default_factory=dict)
    sessions: set[bytes] = field(default_factory=set)
    late: int = 0
    duplicates: int = 0


def expected(bootstrap: str, settings: FoldSettings) -> Expected:
    """Fold the whole log."""
    out = Expected()
    stage2 = {p: ItemPartition(p) for p in range(topics.FEATURE_UPDATES.partitions)}
    offsets = dict.fromkeys(stage2, 0)
    batches = []
    for partition, records in read_log(bootstrap, topics.EVENTS).items():
        state = UserPartition(partition, len(stage2), settings)
        users: set[str] = set()
        for record in records:
            outputs = state.fold([record])
            users |= outputs.users.changed
            out.late += outputs.counts.late
            out.duplicates += outputs.counts.duplicates
            out.sessions |= set(map(unplaced, outputs.sessions))
            batches.append(outputs.label_batch)
            for target, update in outputs.updates.items():
                stage2[target].fold_updates([replace(record, offset=offsets[target], value=update)])
                offsets[target] += 1
        out.users |= dict(state.rows(users))
    out.labels = labels_of(batches)
    for partition, records in read_log(bootstrap, topics.ITEMS).items():
        stage2[partition].fold_items(records)
    for entity, keys in keys_of(bootstrap).items():
        for state2 in stage2.values():
            out.keys[entity] |= {
                key: unstamped(row, ROWS[entity]) for key, row in state2.rows(entity, keys)
            }
    return out


def unplaced(record: bytes) -> bytes:
    """A session, without where its run of records ended."""
    session = pb.Session.FromString(record)
    session.ClearField("source_offset")
    return session.SerializeToString(deterministic=True)


def labels_of(batches: Iterable[bytes]) -> dict[tuple[str, str, str], Label]:
    """Labels after all changes, as a reader arrives at them: repeated records are skipped."""
    mark = HighWater()
    labels: dict[tuple[str, str, str], Label] = {}
    for raw in batches:
        batch = pb.LabelBatch.FromString(raw)
        if not mark.follow(batch.source_partition, batch.first_offset, batch.source_offset):
            continue
        for row in range(len(batch.user_id)):
            key = (
                batch.strings[batch.user_id[row]],
                batch.strings[batch.request_id[row]],
                batch.strings[batch.item_id[row]],
            )
            labels[key] = (
                batch.new_status[row],
                batch.new_clicked[row],
                batch.new_purchased[row],
                batch.new_value_micros[row],
            )
    return labels


def keys_of(bootstrap: str) -> dict[Entity, set[str]]:
    """What any update names."""
    keys: dict[Entity, set[str]] = {entity: set() for entity in Entity}
    for records in read_log(bootstrap, topics.FEATURE_UPDATES).values():
        for record in records:
            updates = pb.FeatureUpdates.FromString(record.value or b"")
            for entity, key in zip(updates.entity, updates.key, strict=True):
                keys[Entity(entity)].add(updates.strings[key])
    return keys


def unstamped(row: bytes | Rows, dtype: np.dtype[np.void]) -> bytes:
    """The row without its stamp, which tells apart equal states reached through repeated sends."""
    rows = np.array(row if isinstance(row, np.ndarray) else np.frombuffer(row, dtype))
    rows["offset"] = rows["items_offset"] = rows["partition"] = 0
    return rows.tobytes()


__all__ = ["CATEGORY_ROW", "ITEM_ROW", "USER_ROW", "expected", "labels_of", "read_log", "unstamped"]
