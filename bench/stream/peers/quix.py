"""Quix Streams: state in RocksDB with changelogs, and repartition topics for items and categories.

A window is emitted once, when it is final, which costs less than an output per event.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from quixstreams import Application, State
from quixstreams.models import TopicConfig

from bench.stream.peers.job import (
    COUNT_WINDOW_S,
    GRACE_S,
    LABELS,
    PARTITIONS,
    SESSIONS,
    TOPIC,
    Arguments,
    Event,
    arguments,
    in_session,
    joined,
)
from bench.stream.peers.meter import Meter

# An event is counted where it is joined, by item and by category.
PARTS = 3


def fold(event: Event, state: State) -> dict[str, Any]:
    """A session that has ended and a label, if there are any.

    State is kept per record key, and a record may hold several users: hence the user in the name.
    """
    user = event["user"]
    session, ended = in_session(state.get(f"session {user}"), event["time_ms"])
    state.set(f"session {user}", session)
    shown = state.get(f"shown {user}", {})
    label = joined(shown, event)
    state.set(f"shown {user}", shown)
    return {"session": ended, "label": label}


def build(given: Arguments) -> Application:
    """The application with its dataframes."""
    app = Application(
        broker_address=given.kafka,
        consumer_group="peer-quix",
        auto_offset_reset="earliest",
        state_dir=given.state,
        loglevel="WARNING",
    )
    meter = Meter(PARTS * given.events, given.out)

    def counted(_value: object) -> None:
        meter.add()

    config = TopicConfig(num_partitions=PARTITIONS, replication_factor=1)
    source = app.dataframe(app.topic(TOPIC, config=config))
    events = source.apply(list, expand=True).set_timestamp(
        lambda event, _key, _time, _headers: event["time_ms"]
    )
    outputs = events.apply(fold, stateful=True).update(counted)
    ended = outputs.filter(lambda out: out["session"]).apply(lambda out: out["session"])
    ended.to_topic(app.topic(SESSIONS, config=config))
    labels = outputs.filter(lambda out: out["label"]).apply(lambda out: out["label"])
    labels.to_topic(app.topic(LABELS, config=config))
    width, grace = timedelta(seconds=COUNT_WINDOW_S), timedelta(seconds=GRACE_S)
    for name in ("item", "category"):
        repartitioned = events.group_by(name).update(counted)
        repartitioned.tumbling_window(width, grace_ms=grace).count().final()
    return app


if __name__ == "__main__":
    build(arguments()).run()
