"""`python -m tests.soak [--minutes 30]`: a real Kafka and Redis, a worker, and traffic whose keys
come and go. Prints the slope of its memory and what it holds; exit code 1 if memory is not flat.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from deploy.local.kafka import kafka_answers, kafka_spec
from deploy.local.processes import Processes
from deploy.local.redis import redis_answers, redis_spec
from deploy.local.report import Silent
from deploy.local.services import Ports
from deploy.local.tools import provision
from rankstream.adapters.kafka import create_topics
from tests.soak.soak import Plan, run
from tests.soak.traffic import Load
from tests.soak.verdict import Sample

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
TOLD_EVERY_S = 30


def main(argv: list[str]) -> int:
    """Run one soak; 0 if memory is flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--ttl-s", type=float, default=120.0)
    parser.add_argument("--events-per-s", type=int, default=Load.events_per_s)
    chosen = parser.parse_args(argv)
    plan = Plan(60 * chosen.minutes, chosen.ttl_s, Load(events_per_s=chosen.events_per_s))
    with tempfile.TemporaryDirectory(prefix="rankstream-soak-") as name:
        processes, ports = Processes(Path(name)), Ports.free()
        try:
            verdict = run(
                *_servers(processes, ports), Path(name), ports.features, plan, progress=_tell
            )
        finally:
            for record in processes.records().values():
                processes.stop(record)
    sys.stdout.write(json.dumps(dataclasses.asdict(verdict), indent=1) + "\n")
    return int(bool(verdict.problems))


def _servers(processes: Processes, ports: Ports) -> tuple[str, str]:
    tools = provision(ROOT / ".run" / "tools", Silent())
    state = processes.state
    kafka = processes.start(kafka_spec(tools, state / "kafka", ports.kafka, ports.kafka_controller))
    store = processes.start(redis_spec(tools.redis_server, state / "redis", ports.redis))
    processes.await_ready(kafka, lambda: kafka_answers(ports.kafka), START_TIMEOUT_S)
    processes.await_ready(store, lambda: redis_answers(ports.redis), START_TIMEOUT_S)
    create_topics(f"127.0.0.1:{ports.kafka}")
    return f"127.0.0.1:{ports.kafka}", f"redis://127.0.0.1:{ports.redis}/0"


def _tell(sample: Sample) -> None:
    if round(sample.at_s) % TOLD_EVERY_S == 0:
        sys.stderr.write(
            f"{sample.at_s:6.0f} s  {sample.rss_bytes / 1e6:6.1f} MB  {sample.users:7d} users"
            f"  {sample.items:6d} items  {sample.redis_keys:7d} keys in Redis\n"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
