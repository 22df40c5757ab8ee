"""Bytewax: windows by event time, state snapshots in SQLite every 10 s, one worker.

It reads to the end of the log and ends; open windows and sessions are emitted then, which is
counted. Events later than the grace are dropped from the windows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.stream.peers.job import (
    COUNT_WINDOW_S,
    GAP_MS,
    GRACE_S,
    LABELS,
    SESSIONS,
    TOPIC,
    Arguments,
    Event,
    Session,
    Shown,
    arguments,
    joined,
)
from bench.stream.peers.meter import Meter

SNAPSHOT_EVERY = timedelta(seconds=10)
START = datetime(2020, 1, 1, tzinfo=UTC)


def time_of(event: Event) -> datetime:
    return datetime.fromtimestamp(event["time_ms"] / 1000, UTC)


def grown(session: Session, event: Event) -> Session:
    """The session with one event more."""
    time_ms = event["time_ms"]
    if not session:
        return [time_ms, time_ms, 1]
    return [min(session[0], time_ms), max(session[1], time_ms), session[2] + 1]


def merged(one: Session, other: Session) -> Session:
    """Two sessions that have turned out to be one."""
    if not one or not other:
        return one or other
    return [min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]]


def join(shown: Shown | None, event: Event) -> tuple[Shown, Iterable[Event]]:
    """The user's impressions, and a label if there is one."""
    kept = {} if shown is None else shown
    label = joined(kept, event)
    return kept, [label] if label else []


def build(given: Arguments, meter: Meter) -> Dataflow:
    """The flow."""

    def decoded(message: Any) -> list[Event]:
        events: list[Event] = orjson.loads(message.value)
        for _ in events:
            meter.add()
        return events

    def message(keyed: tuple[str, Any]) -> Any:
        return KafkaSinkMessage(keyed[0].encode(), orjson.dumps(keyed[1]))

    flow = Dataflow("peer")
    clock = win.EventClock(time_of, wait_for_system_duration=timedelta(seconds=GRACE_S))
    raw = op.input("read", flow, KafkaSource([given.kafka], [TOPIC], tail=False))
    events = op.flat_map("decode", raw, decoded)
    by_user = op.key_on("user", events, lambda event: event["user"])
    gap = win.SessionWindower(gap=timedelta(milliseconds=GAP_MS))
    sessions = win.fold_window("sessions", by_user, clock, gap, list, grown, merged)
    ended = op.map("ended", sessions.down, lambda keyed: message((keyed[0], keyed[1][1])))
    op.output("to_sessions", ended, KafkaSink([given.kafka], SESSIONS))
    labels = op.map("label", op.stateful_flat_map("join", by_user, join), message)
    op.output("to_labels", labels, KafkaSink([given.kafka], LABELS))
    hours = win.TumblingWindower(length=timedelta(seconds=COUNT_WINDOW_S), align_to=START)
    win.count_window("items", events, clock, hours, lambda event: event["item"])
    win.count_window("categories", events, clock, hours, lambda event: event["category"])
    return flow


def main(given: Arguments) -> None:
    """Run to the end of the log."""
    # One more than there are: the end is the end of the flow, not of the decoding.
    meter = Meter(given.events + 1, given.out)
    given.state.mkdir(parents=True, exist_ok=True)
    init_db_dir(given.state, 1)
    flow = build(given, meter)
    cli_main(flow, epoch_interval=SNAPSHOT_EVERY, recovery_config=RecoveryConfig(given.state))
    meter.finish()


if __name__ == "__main__":
    main(arguments())
