"""Plain Faust: one agent, four tables with changelogs, two of them windowed.

Tables are in memory, which is faster than RocksDB. A table's partition is that of the record, which
is right for users and wrong for items and categories once there are several workers: a repartition
topic would be needed, and is left out in Faust's favour.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust
import orjson
import uvloop

from bench.stream.peers.job import (
    COUNT_WINDOW_S,
    LABELS,
    PARTITIONS,
    SESSIONS,
    TOPIC,
    Arguments,
    arguments,
    in_session,
    joined,
)
from bench.stream.peers.meter import Meter

# Faust expires windows by the wall clock, and these events are up to two days old.
EXPIRES_S = 5 * 86_400


def build_app(given: Arguments, loop: asyncio.AbstractEventLoop) -> faust.App:
    """The app: its agent folds every event into the tables."""
    app = faust.App(
        "peer-faust",
        broker=f"kafka://{given.kafka}",
        loop=loop,
        autodiscover=False,
        web_enabled=False,
        store="memory://",
        datadir=str(given.state),
        topic_partitions=PARTITIONS,
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        value_serializer="raw",
    )
    meter = Meter(given.events, given.out)
    source = app.topic(TOPIC, value_type=bytes)
    labels, closed = app.topic(LABELS, value_type=bytes), app.topic(SESSIONS, value_type=bytes)
    sessions = app.Table("sessions", default=list, partitions=PARTITIONS)
    shown = app.Table("shown", default=dict, partitions=PARTITIONS)
    now_s = 0.0

    def counts(name: str) -> Any:
        table = app.Table(name, default=int, partitions=PARTITIONS)
        windowed: Any = table.tumbling(COUNT_WINDOW_S, expires=EXPIRES_S)
        return windowed.relative_to(lambda _event: now_s)

    items, categories = counts("items"), counts("categories")

    @app.agent(source)
    async def fold(stream: Any) -> None:
        nonlocal now_s
        async for value in stream:
            for event in orjson.loads(value):
                user, time_ms = event["user"], event["time_ms"]
                now_s = time_ms / 1000
                sessions[user], ended = in_session(sessions[user] or None, time_ms)
                if ended:
                    await closed.send(value=orjson.dumps(ended))
                mine = shown[user]
                label = joined(mine, event)
                shown[user] = mine
                if label:
                    await labels.send(value=orjson.dumps(label))
                items[event["item"]] += 1
                categories[event["category"]] += 1
                meter.add()

    return app


async def main(given: Arguments) -> None:
    """Run until killed."""
    app = build_app(given, asyncio.get_running_loop())
    await app.start()
    await app.wait_until_stopped()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments()))
    sys.exit(0)
