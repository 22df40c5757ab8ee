"""The experiments service as a process, on the real Kafka."""

from __future__ import annotations

import json
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


@pytest.fixture
def service(kafka_topics: str) -> Iterator[Service]:
    """A running service on empty topics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    producer = Producer({"bootstrap.servers": kafka_topics, "acks": "all", "log_level": 2})
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


def units(scorecard: Scorecard) -> int:
    return sum(variant.units for variant in scorecard.variants)


def state(service: Service) -> list[bytes]:
    """What the service answers with: definitions and scorecards."""
    return [service.http.get("/v1/experiments" + path).content for path in PATHS]


@pytest.mark.integration
def test_a_scorecard_is_what_the_log_says_and_a_restart_changes_no_byte(service: Service) -> None:
    service.define()
    running = service.change("start")
    start_ms = running.start_ms or 0
    exposed = service.expose(running, start_ms + 1)
    service.until(lambda: units(service.scorecard()) == len(exposed), "exposures")
    clicks = clicks_of([*USERS, STRANGER])
    # The watermark is past what may wait: read without its exposure at hand, a label is lost.
    service.label(start_ms + 5, clicks, watermark_ms=start_ms + 2 * HOUR_MS)
    service.until(lambda: totals(service.scorecard()) == counted(exposed, clicks), "labels")
    fields = running.model_dump(mode="json") | {"version": 3, "traffic_bp": 10_000}
    ramped = service.expose(service.define(**fields), start_ms + 10)
    service.until(lambda: units(service.scorecard()) == len(ramped), "ramped exposures")
    service.change("stop")
    before = state(service)

    service.stop(signal.SIGKILL)
    service.start()

    assert state(service) == before
    assert len(exposed) < len(ramped) == len(USERS)
    assert exposed.items() <= ramped.items()
    stopped = Experiment.model_validate_json(before[1])
    assert (stopped.status, stopped.version) == ("stopped", 4)
    assert Scorecard.model_validate_json(before[2]) == expected(stopped, exposed, ramped, clicks)


def expected(
    experiment: Experiment, exposed: dict[str, str], ramped: dict[str, str], clicks: dict[str, int]
) -> Scorecard:
    """The scorecard of the test above, folded in this process in another order."""
    assert experiment.start_ms is not None
    table = UnitTable(experiment)
    for user, click in clicks.items():
        table.add(user, experiment.start_ms + 5, Delta(impressions=1, clicks=click))
    for unit, variant in ramped.items():
        table.expose(unit, variant, experiment.start_ms + 10)
    for unit, variant in exposed.items():
        table.expose(unit, variant, experiment.start_ms + 1)
    table.expire(experiment.start_ms + HOUR_MS)
    return table.scorecard(alpha=0.05)


@pytest.mark.integration
def test_labels_from_before_the_start_are_the_same_after_a_restart(service: Service) -> None:
    service.define()
    service.label(1_700_000_000_000, clicks_of(USERS), watermark_ms=1_700_000_000_000)
    service.until(lambda: label_lag(service) == 0, "labels to be read")
    service.change("start")
    before = state(service)

    service.stop(signal.SIGKILL)
    service.start()

    assert state(service) == before


def label_lag(service: Service) -> float:
    """Records of `labels` behind the end; 1 before the first has been heard of."""
    page = service.http.get("/metrics").text
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith("rankstream_consumer_lag_records{partition=")
        and 'topic="labels"' in line
    ]
    return sum(found) if found else 1.0


REFUSED: list[tuple[str, dict[str, Any], int, str, str]] = [
    # path, body, status, code, part of the message
    ("", {"content": b'{"id": '}, 422, "invalid_experiment", "JSON"),
    ("", {"content": b"\xff\xfe"}, 422, "invalid_experiment", "JSON"),
    ("", {"content": b""}, 422, "invalid_experiment", "JSON"),
    ("", {"content": b"[]"}, 422, "invalid_experiment", "object"),
    ("", {"json": a_definition(colour="red")}, 422, "invalid_experiment", "colour"),
    ("", {"json": a_definition(id="")}, 422, "invalid_experiment", "id: "),
    ("", {"json": a_definition(id="a/b")}, 422, "invalid_experiment", "id: "),
    ("", {"json": a_definition(id="d", version=2)}, 409, "conflict", "next version is 1"),
    ("", {"json": a_definition(id="d", traffic_bp=10_001)}, 422, "invalid_experiment", "traffic"),
    ("", {"json": a_definition(id="d", primary_metric="dwell")}, 422, "invalid_experiment", "ctr"),
    ("", {"json": a_definition(id="d", guardrails=["rpq"])}, 422, "invalid_experiment", "rpq"),
    ("", {"json": a_definition(id="d", control="c")}, 422, "invalid_experiment", "variants: c"),
    (
        "",
        {
            "json": a_definition(
                id="d",
                variants=[
                    {"name": "control", "weight_bp": 5000, "model": "champion"},
                    {"name": "treatment", "weight_bp": 4000, "model": "challenger"},
                ],
            )
        },
        422,
        "invalid_experiment",
        "sum to 9000",
    ),
    ("", {"json": a_definition()}, 409, "conflict", "next version is"),
    ("/rankers:start", {}, 409, "conflict", "is running, so it cannot become running"),
    ("/draft:stop", {}, 409, "conflict", "is draft, so it cannot become stopped"),
    ("/clash:start", {}, 422, "invalid_experiment", "overlap in layer ranking"),
    ("/past:start", {}, 422, "invalid_experiment", "stop_ms=2 must be after"),
    ("/nobody:start", {}, 404, "unknown_experiment", "'nobody'"),
    ("/nobody:stop", {}, 404, "unknown_experiment", "'nobody'"),
    ("/rankers:pause", {}, 405, "method_not_allowed", ""),
]
UNREADABLE = [
    ("/nobody", 404, "unknown_experiment", "known: clash, draft, past, rankers"),
    ("/nobody/scorecard", 404, "unknown_experiment", "'nobody'"),
    ("/draft/scorecard", 409, "conflict", "is a draft"),
    ("/rankers/scorecard?alpha=2", 422, "invalid_request", "alpha"),
    ("/rankers/scorecard?alpha=0", 422, "invalid_request", "alpha"),
    ("/rankers/scorecard?alpha=nan", 422, "invalid_request", "alpha"),
    ("/rankers/scorecard?alpha=half", 422, "invalid_request", "alpha"),
]


@pytest.mark.integration
def test_what_cannot_be_done_is_refused_by_name_and_changes_nothing(service: Service) -> None:
    service.define()
    running = service.change("start")
    service.define(id="draft", layer="other")
    service.define(id="clash")
    service.define(id="past", layer="third", start_ms=1, stop_ms=2)
    again = running.model_dump(mode="json") | {"version": 3}
    ended = {"json": again | {"stop_ms": (running.start_ms or 0) + 1}}
    moved = {"json": again | {"salt": "s2"}}
    lowered = {"json": again | {"traffic_bp": 1}}
    before = state(service)

    answers = [
        (service.http.post("/v1/experiments" + path, **body), status, code, part)
        for path, body, status, code, part in [
            *REFUSED,
            ("", ended, 409, "conflict", "stop_ms cannot change from None"),
            ("", moved, 409, "conflict", "salt cannot change"),
            ("", lowered, 409, "conflict", "traffic_bp (lowered)"),
        ]
    ]
    answers += [
        (service.http.get("/v1/experiments" + path), status, code, part)
        for path, status, code, part in UNREADABLE
    ]

    wrong = [
        (answer.request.url.path, answer.status_code, answer.text, status, code, part)
        for answer, status, code, part in answers
        if (answer.status_code, answer.json()["error"]["code"]) != (status, code)
        or part not in answer.json()["error"]["message"]
    ]
    assert wrong == []
    assert state(service) == before


@pytest.mark.integration
def test_a_definition_from_the_log_is_in_force_within_a_second(service: Service) -> None:
    written = Experiment.model_validate_json(json.dumps(a_definition()))

    service.producer.produce(topics.EXPERIMENTS.name, encode_experiment(written), written.id)
    assert service.producer.flush(WAIT_S) == 0

    service.until(
        lambda: service.http.get("/v1/experiments/rankers").is_success, "definition", within_s=1
    )


@pytest.mark.integration
def test_records_that_are_not_ours_are_counted_and_stop_nothing(service: Service) -> None:
    for name in (topics.EXPERIMENTS.name, topics.EXPOSURES.name, topics.LABELS.name):
        service.producer.produce(name, b"\xff\xff", b"k")
        service.producer.produce(name, None, b"k")
    assert service.producer.flush(WAIT_S) == 0

    service.until(
        lambda: all(
            f'rankstream_experiments_skipped_records{{reason="{reason}"}} 1.0' in page(service)
            for reason in ("invalid_experiment", "invalid_exposure", "invalid_label")
        ),
        "records to be counted",
    )
    assert service.http.get("/readyz").json() == {"ready": True, "reasons": {}}


def page(service: Service) -> str:
    return service.http.get("/metrics").text


@pytest.mark.integration
def test_health_and_metrics_are_there_and_sigterm_ends_it_in_time(service: Service) -> None:
    service.define()
    running = service.change("start")
    exposed = service.expose(running, (running.start_ms or 0) + 1)
    treated = sum(variant == "treatment" for variant in exposed.values())
    service.label((running.start_ms or 0) + 5, dict.fromkeys(USERS, 1), watermark_ms=1)

    service.until(
        lambda: all(
            line in page(service)
            for line in (
                f'_units{{experiment="rankers",variant="treatment"}} {float(treated)}',
                '_metric{experiment="rankers",metric="ctr",variant="control"} 1.0',
                '_srm_p_value{experiment="rankers"}',
                'rankstream_consumer_lag_records{partition="0",topic="exposures"} 0.0',
                "rankstream_process_cpu_seconds_total",
            )
        ),
        "metrics",
    )
    assert service.http.get("/healthz").text == "ok\n"
    began = time.monotonic()
    assert service.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < SHUTDOWN_S


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({}, 0, "experiments: settings are valid"),
        ({"EXPERIMENTS_PORT": "8105"}, 0, "experiments: settings are valid"),
        ({"EXPERIMENTS_PORT": "web"}, 1, "EXPERIMENTS_PORT is 'web'"),
        ({"EXPERIMENTS_EXPOSURE_WAIT_MS": "0"}, 1, "EXPERIMENTS_EXPOSURE_WAIT_MS is '0'"),
        ({"EXPERIMENTS_ALPHA": "0.1"}, 1, "EXPERIMENTS_ALPHA is not a setting"),
    ],
)
def test_check_config_says_whether_the_settings_are_right(
    environ: dict[str, str], code: int, said: str
) -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "services.experiments", "--check-config"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )

    assert outcome.returncode == code
    assert said in outcome.stdout + outcome.stderr


async def test_before_the_log_is_read_nothing_is_answered_and_nothing_taken() -> None:
    nowhere = "127.0.0.1:9"
    producer = EventProducer(nowhere)
    experiments = Experiments(
        ExperimentsSettings(),
        producer=producer,
        reader=lambda names, offsets: LogReader(nowhere, names, offsets=offsets),
        health=Health(LOG),
        metrics_of=Metrics(CollectorRegistry()),
        now_ms=lambda: 1,
    )
    app = FastAPI()
    install_errors(app)
    add_routes(app, experiments)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://experiments"
    ) as http:
        answers = [await http.get("/v1/experiments" + path) for path in PATHS]
        answers.append(await http.post("/v1/experiments", json=a_definition()))
        answers.append(await http.post("/v1/experiments/rankers:start"))

    assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(503, "not_ready")}
    assert all(a.json()["error"]["retryable"] and a.headers["Retry-After"] for a in answers)
    await producer.flush_and_close()
