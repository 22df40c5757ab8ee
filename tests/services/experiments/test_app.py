"""The experiments service as a process, on the real Kafka."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.health import Health
from rankstream.adapters.http import install_errors
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.experiments.assign import assign
from rankstream.experiments.scorecard import Delta, UnitTable
from rankstream.pb import events_pb2 as pb
from services.experiments.app import LOG, Experiments, add_routes
from services.experiments.settings import ExperimentsSettings

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 30.0
SHUTDOWN_S = 5.0
HOUR_MS = 3_600_000
USERS = [f"u{n}" for n in range(400)]
STRANGER = "never-exposed"
UNDER_WAY = ("running", "stopped")


def a_definition(**changes: Any) -> dict[str, Any]:
    return {
        "id": "rankers",
        "salt": "s1",
        "layer": "ranking",
        "variants": [
            {"name": "control", "weight_bp": 5000, "model": "champion"},
            {"name": "treatment", "weight_bp": 5000, "model": "challenger"},
        ],
        "traffic_bp": 8_000,
        "control": "control",
        "primary_metric": "ctr",
        "guardrails": ["cvr"],
        **changes,
    }


@dataclass
class Service:
    """`python -m services.experiments`, its HTTP client, and a producer of what it reads."""

    kafka: str
    port: int
    http: httpx.Client
    producer: Producer
    process: subprocess.Popen[bytes] | None = None
    labels_sent: list[pb.LabelBatch] = field(default_factory=list)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.experiments"],
            cwd=ROOT,
            env={**os.environ, **self.environ()},
            stdout=subprocess.DEVNULL,
        )
        self.until(lambda: self.http.get("/readyz").is_success, "ready")

    def environ(self) -> dict[str, str]:
        return {
            "EXPERIMENTS_PORT": str(self.port),
            "EXPERIMENTS_KAFKA_URL": self.kafka,
            "EXPERIMENTS_MEASURE_EVERY_S": "0.2",
            "EXPERIMENTS_SHUTDOWN_TIMEOUT_S": str(SHUTDOWN_S),
        }

    def stop(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        self.process = None
        return code

    def until(self, holds: Callable[[], bool], what: str, within_s: float = WAIT_S) -> None:
        deadline = time.monotonic() + within_s
        while True:
            assert self.process is not None
            assert self.process.poll() is None, "the service has stopped"
            try:
                if holds():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"waited {within_s} s: {what}"
            time.sleep(0.02)

    def define(self, **changes: Any) -> Experiment:
        answer = self.http.post("/v1/experiments", json=a_definition(**changes))
        assert answer.status_code == 201, answer.text
        return Experiment.model_validate_json(answer.content)

    def change(self, verb: str) -> Experiment:
        answer = self.http.post(f"/v1/experiments/rankers:{verb}")
        assert answer.status_code == 200, answer.text
        return Experiment.model_validate_json(answer.content)

    def scorecard(self) -> Scorecard:
        answer = self.http.get("/v1/experiments/rankers/scorecard")
        assert answer.status_code == 200, answer.text
        return Scorecard.model_validate_json(answer.content)

    def expose(self, experiment: Experiment, units: list[str]) -> dict[str, str]:
        """Log the exposure of every unit in the traffic, twice; unit -> variant."""
        assert experiment.start_ms is not None
        variants = {}
        for unit in units:
            found = assign(experiment, unit, as_of_ms=experiment.start_ms)
            if found is None:
                continue
            variants[unit] = found.variant
            exposure = pb.Exposure(
                experiment_id=experiment.id,
                experiment_version=experiment.version,
                variant=found.variant,
                unit=unit,
                exposure_time_ms=experiment.start_ms + 1,
            )
            for _ in range(2):
                self.producer.produce(topics.EXPOSURES.name, exposure.SerializeToString(), unit)
        assert self.producer.flush(WAIT_S) == 0
        return variants

    def label(self, impression_ms: int, clicks: dict[str, int], watermark_ms: int) -> None:
        """Log one impression per user, clicked or not; every record twice, as after a crash."""
        for partition in range(topics.LABELS.partitions):
            users = [user for user in clicks if hash_of(user) == partition]
            batch = pb.LabelBatch(
                source_partition=partition,
                source_offset=len(self.labels_sent),
                strings=["", *users],
                user_id=range(1, len(users) + 1),
                item_id=[0] * len(users),
                request_id=[0] * len(users),
                impression_time_ms=[impression_ms] * len(users),
                position=[0] * len(users),
                old_status=[pb.LABEL_ABSENT] * len(users),
                new_status=[pb.LABEL_PROVISIONAL] * len(users),
                old_clicked=[0] * len(users),
                new_clicked=[clicks[user] for user in users],
                old_purchased=[0] * len(users),
                new_purchased=[0] * len(users),
                old_value_micros=[0] * len(users),
                new_value_micros=[0] * len(users),
                watermark_ms=watermark_ms,
            )
            self.labels_sent.append(batch)
            for _ in range(2):
                self.producer.produce(
                    topics.LABELS.name, batch.SerializeToString(), partition=partition
                )
        assert self.producer.flush(WAIT_S) == 0


def hash_of(user: str) -> int:
    return sum(user.encode()) % topics.LABELS.partitions


def clicks_of(users: list[str]) -> dict[str, int]:
    return {user: int(n % 7 == 0) for n, user in enumerate(users)}


@pytest.fixture
def service(kafka_topics: str) -> Iterator[Service]:
    """A running service on empty topics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    producer = Producer({"bootstrap.servers": kafka_topics, "acks": "all"})
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        running = Service(kafka_topics, port, http, producer)
        try:
            running.start()
            yield running
        finally:
            if running.process is not None:
                running.process.kill()
                running.process.wait()


def totals(scorecard: Scorecard) -> dict[str, tuple[int, int, int]]:
    return {v.variant: (v.units, v.impressions, v.clicks) for v in scorecard.variants}


def counted(variants: dict[str, str], clicks: dict[str, int]) -> dict[str, tuple[int, int, int]]:
    """Units, impressions and clicks by variant, the slow and obvious way."""
    return {
        name: (
            sum(variant == name for variant in variants.values()),
            sum(variants.get(user) == name for user in clicks),
            sum(click for user, click in clicks.items() if variants.get(user) == name),
        )
        for name in ("control", "treatment")
    }


@pytest.mark.integration
def test_a_scorecard_is_what_the_log_says_and_a_restart_changes_no_byte(service: Service) -> None:
    service.define()
    running = service.change("start")
    assert running.start_ms is not None
    exposed = service.expose(running, USERS)
    service.until(lambda: units(service.scorecard()) == len(exposed), "exposures to be counted")
    clicks = clicks_of([*USERS, STRANGER])
    # The watermark has passed what may still wait: without the exposures at hand, all were lost.
    service.label(running.start_ms + 5, clicks, watermark_ms=running.start_ms + 2 * HOUR_MS)
    service.until(lambda: totals(service.scorecard()) == counted(exposed, clicks), "labels")
    amended = service.define(
        **running.model_dump(mode="json") | {"version": 3, "traffic_bp": 10_000}
    )
    ramped = service.expose(amended, USERS)
    service.until(lambda: units(service.scorecard()) == len(ramped), "ramped exposures")
    service.change("stop")
    before = [service.http.get(path).content for path in every_path()]

    service.stop(signal.SIGKILL)
    service.start()

    assert [service.http.get(path).content for path in every_path()] == before
    assert len(exposed) < len(ramped) == len(USERS)
    assert all(ramped[unit] == variant for unit, variant in exposed.items())
    table = UnitTable(Experiment.model_validate_json(before[1]))
    for unit, variant in ramped.items():
        table.expose(unit, variant, running.start_ms + 1)
    for user, click in clicks.items():
        table.add(user, running.start_ms + 5, Delta(impressions=1, clicks=click))
    table.expire(running.start_ms + HOUR_MS)
    assert Scorecard.model_validate_json(before[2]) == table.scorecard(alpha=0.05)
    assert totals(service.scorecard()) == counted(ramped, clicks)
