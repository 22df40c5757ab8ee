"""The experiments service as a process, and what its tests put into the log."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer

from rankstream import topics
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.experiments.assign import assign
from rankstream.pb import events_pb2 as pb

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 30.0
SHUTDOWN_S = 5.0
HOUR_MS = 3_600_000
USERS = [f"u{n}" for n in range(400)]
STRANGER = "never-exposed"
PATHS = ("", "/rankers", "/rankers/scorecard", "/rankers/scorecard?alpha=0.01")


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
    """`python -m services.experiments`, a client of its admin port, a producer of what it reads."""

    kafka: str
    port: int
    admin_port: int
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
            "EXPERIMENTS_ADMIN_PORT": str(self.admin_port),
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

    def expose(self, experiment: Experiment, at_ms: int) -> dict[str, str]:
        """Log the exposure of every user in the traffic, twice; unit -> variant."""
        variants = {}
        for unit in USERS:
            found = assign(experiment, unit, as_of_ms=at_ms)
            if found is None:
                continue
            variants[unit] = found.variant
            exposure = pb.Exposure(
                experiment_id=experiment.id,
                experiment_version=experiment.version,
                variant=found.variant,
                unit=unit,
                exposure_time_ms=at_ms,
            )
            for _ in range(2):
                self.producer.produce(topics.EXPOSURES.name, exposure.SerializeToString(), unit)
        assert self.producer.flush(WAIT_S) == 0
        return variants

    def label(self, impression_ms: int, clicks: dict[str, int], watermark_ms: int) -> None:
        """Log one impression per user, clicked or not; every record twice, as after a crash."""
        for partition in range(topics.LABELS.partitions):
            users = [user for user in clicks if len(user) % 4 == partition]
            batch = pb.LabelBatch(
                source_partition=partition,
                # Right behind this partition's last one.
                first_offset=len(self.labels_sent) - topics.LABELS.partitions + 1,
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


def clicks_of(users: list[str]) -> dict[str, int]:
    return {user: int(n % 7 == 0) for n, user in enumerate(users)}


def state(service: Service) -> list[bytes]:
    """What the service answers with: definitions and scorecards."""
    return [service.http.get("/v1/experiments" + path).content for path in PATHS]


def page(service: Service) -> str:
    return service.http.get("/metrics").text
