"""What the experiments service refuses, and what it does before it can answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.apps import Apps, build_apps
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.adapters.metrics import Metrics
from services.experiments.app import LOG, Experiments, routes, scope_of
from services.experiments.settings import ExperimentsSettings
from tests.services.experiments.experiments_process import (
    PATHS,
    ROOT,
    WAIT_S,
    Service,
    a_definition,
    page,
    state,
)

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


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({}, 0, "experiments: settings are valid"),
        ({"EXPERIMENTS_PORT": "8205"}, 0, "experiments: settings are valid"),
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


@pytest.fixture
async def unread() -> AsyncIterator[Apps]:
    """Both ports of a service whose log does not answer."""
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
    yield build_apps(
        "experiments",
        routes(experiments),
        Health(),
        CollectorRegistry(),
        access=None,
        scope_of=scope_of,
    )
    await producer.flush_and_close()


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://experiments")


async def test_before_the_log_is_read_nothing_is_answered_and_nothing_taken(unread: Apps) -> None:
    async with client_of(unread.admin) as http:
        answers = [await http.get("/v1/experiments" + path) for path in PATHS]
        answers.append(await http.post("/v1/experiments", json=a_definition()))
        answers.append(await http.post("/v1/experiments/rankers:start"))

    assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(503, "not_ready")}
    assert all(a.json()["error"]["retryable"] and a.headers["Retry-After"] for a in answers)


async def test_the_public_port_reads_and_changes_nothing(unread: Apps) -> None:
    async with client_of(unread.public) as http:
        read = [await http.get("/v1/experiments" + path) for path in PATHS]
        changed = [
            await http.post("/v1/experiments", json=a_definition()),
            await http.post("/v1/experiments/rankers:start"),
            await http.post("/v1/experiments/rankers:stop"),
        ]

    assert {answer.status_code for answer in read} == {503}  # routed, and not ready
    assert {answer.status_code for answer in changed} == {405}
