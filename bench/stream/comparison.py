"""Run the peers' programs on the traffic of the other measurements, in their own environment."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.stream.errors import MeasurementFailed
from bench.stream.load import (
    Events,
    LoadRecord,
    Traffic,
    category_of,
    chunks,
    draw,
    item_id,
    request_id,
    user_id,
)
from bench.stream.peers import job
from bench.stream.servers import PARTITIONS, ROOT, Servers, produce, reset
from bench.stream.throughput import Rate
from deploy.local.processes import Spec
from deploy.local.services import COMMON
from rankstream.contracts.columns import Kind
from rankstream.topics import Topic

RUN_TIMEOUT_S: Final = 300.0
STOP_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.1
# Not run here: Metarank 0.7.11, its import with memory state and 17 features, 2 shared x86 cores.
METARANK_EVENTS_PER_S: Final = 1_853.0
TOPICS: Final = tuple(
    Topic(name, "user_id", "bench", "JSON", partitions=PARTITIONS, retention_ms=-1)
    for name in (job.TOPIC, job.SESSIONS, job.LABELS, *job.CHANGELOGS)
)


@dataclass(frozen=True)
class Peer:
    """A program, and how many events make a run of some seconds, by the size of the records."""

    module: str
    events: Mapping[int, int]


PEERS: Final = {
    "faust": Peer("bench.stream.peers.faust_tables", {1: 12_000, 100: 40_000}),
    "quix": Peer("bench.stream.peers.quix", {1: 30_000, 100: 60_000}),
    "bytewax": Peer("bench.stream.peers.bytewax_flow", {1: 60_000, 100: 120_000}),
}


def compared(servers: Servers, python: Path, name: str, size: int) -> Rate:
    """One peer with records of `size` events.

    Raises: MeasurementFailed if it ends or takes too long.
    """
    peer = PEERS[name]
    reset(servers, TOPICS)
    events = draw(Traffic(peer.events[size], end_ms=time.time_ns() // 1_000_000))
    produce(servers, json_records(events, size), job.TOPIC, compression="none")
    state, out = servers.folder / f"peer-{name}", servers.folder / f"peer-{name}.json"
    shutil.rmtree(state, ignore_errors=True)
    out.unlink(missing_ok=True)
    command = [str(python), "-m", peer.module, "--kafka", servers.kafka]
    command += ["--events", str(len(events)), "--state", str(state), "--out", str(out)]
    spec = Spec(f"peer-{name}", tuple(command), dict(COMMON), ROOT, (), STOP_TIMEOUT_S)
    record = servers.processes.start(spec)
    try:
        deadline = time.monotonic() + RUN_TIMEOUT_S
        while not out.exists():
            if time.monotonic() > deadline:
                raise MeasurementFailed(
                    f"{name} took over {RUN_TIMEOUT_S:g} s for {len(events)} events"
                )
            servers.processes.require_running(record)
            time.sleep(POLL_S)
    finally:
        servers.processes.stop(record)
    took = json.loads(out.read_text())
    return Rate(len(events) / took["cpu_s"], len(events) / took["wall_s"], took["cpu_s"])


def json_records(events: Events, size: int) -> Iterator[LoadRecord]:
    """The same events, record by record, as JSON arrays."""
    for partition, rows in chunks(events, partitions=PARTITIONS, size=size):
        found = list(_events(events, rows.tolist()))
        yield LoadRecord(partition, len(found), json.dumps(found).encode())


def _events(events: Events, rows: Iterable[int]) -> Iterator[job.Event]:
    for row in rows:
        item, slate = int(events.item[row]), int(events.slate[row])
        yield {
            "kind": Kind(int(events.kind[row])).name.lower(),
            "user": user_id(int(events.user[row])),
            "item": item_id(item),
            "category": category_of(item, events.categories),
            "request": request_id(events.seed, slate) if slate >= 0 else "",
            "time_ms": int(events.time_ms[row]),
            "value": float(events.value[row]),
        }
