"""Append a history to Kafka: items first, then events in event time over all partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pipelines.datasets.history import History, batches
from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.contracts.codec import encode_item

IN_FLIGHT_MAX: Final = 2_000


@dataclass(frozen=True)
class Produced:
    """What is in the log now; `records` counts those of topic `events`."""

    events: int
    items: int
    users: int
    records: int
    from_ms: int
    until_ms: int


async def produce(
    history: History, producer: EventProducer, *, progress: Callable[[int, int], None]
) -> Produced:
    """Append items and events; returns when the cluster has all of them.

    `progress` hears (events acked, events in total).

    Raises: DependencyUnavailable, QueueFull: some records may have been appended; produce the same
    history again, its event ids are the same.
    """
    items = (item.update() for item in history.items)
    await asyncio.gather(
        *[
            producer.send(topics.ITEMS.name, encode_item(item), key=item.item_id.encode())
            for item in items
        ]
    )
    partitions = await producer.partitions(topics.EVENTS.name)
    records = batches(history.columns, partitions=partitions)
    total, done = len(history.columns), 0
    for start in range(0, len(records), IN_FLIGHT_MAX):
        part = records[start : start + IN_FLIGHT_MAX]
        await asyncio.gather(
            *[
                producer.send(topics.EVENTS.name, batch.record, partition=batch.partition)
                for batch in part
            ]
        )
        done += sum(batch.events for batch in part)
        progress(done, total)
    times = history.columns.event_time_ms
    return Produced(
        events=total,
        items=len(history.items),
        users=len(set(history.columns.user_id.tolist())),
        records=len(records),
        from_ms=int(times[0]),
        until_ms=int(times[-1]),
    )
