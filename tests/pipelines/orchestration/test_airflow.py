"""The DAGs in Airflow itself: `airflow dags test` runs the commands, a failure reaches an alert."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from deltalake import write_deltalake

from deploy.local.environments import environment
from rankstream import topics
from rankstream.adapters.kafka import Record
from services.features.lake_rows import PARTITION_BY, event_rows
from tests.pipelines.orchestration.lake import DAY, ROOT, TABLES, a_tiny_lake, written
from tests.pipelines.test_run import a_movielens, job, read

TIMEOUT_S = 600
DAGS = ROOT / "pipelines" / "orchestration" / "airflow" / "dags"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]


class Alertmanager(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    posted: ClassVar[list[tuple[str, list[dict[str, dict[str, str]]]]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.posted.append((self.path, json.loads(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def alertmanager() -> Iterator[str]:
    """Address of a server that takes alerts."""
    server = HTTPServer(("127.0.0.1", 0), Alertmanager)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AIRFLOW_HOME with a database."""
    folder = tmp_path_factory.mktemp("airflow")
    airflow(folder, "db", "migrate")
    return folder


def airflow(home: Path, *arguments: str, **variables: str) -> str:
    """Output of a command of Airflow; it must succeed."""
    return python(home, "-m", "airflow", *arguments, **variables)


def python(home: Path, *arguments: str, **variables: str) -> str:
    environ = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_VAR_RANKSTREAM_HOME": str(ROOT),
        "AIRFLOW_VAR_RANKSTREAM_PYTHON": sys.executable,
    }
    environ |= {f"AIRFLOW_VAR_RANKSTREAM_{name.upper()}": text for name, text in variables.items()}
    done = subprocess.run(
        [str(environment("airflow")), *arguments],
        cwd=home,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_daily_dag_writes_what_is_due(home: Path, tmp_path: Path) -> None:
    lake, out = a_tiny_lake(tmp_path), tmp_path / "out"

    airflow(home, "dags", "test", "daily_features", DAY, lake=str(lake), batch=str(out))

    assert written(out) == TABLES


@pytest.mark.integration
def test_the_weekly_dag_registers_and_publishes_models(
    home: Path, kafka_topics: str, tmp_path: Path
) -> None:
    lake, artifacts = a_lake_of_films(tmp_path, kafka_topics), tmp_path / "artifacts"

    airflow(
        home,
        *("dags", "test", "weekly_training", DAY),
        lake=str(lake),
        artifacts=str(artifacts),
        registry=f"sqlite:///{tmp_path}/registry.db",
        bootstrap=kafka_topics,
    )

    lines = (artifacts / "promotions.jsonl").read_text().splitlines()
    assert {json.loads(line)["why"] for line in lines} == {"weekly training"}
    published = {record.key for record in read(kafka_topics, topics.MODELS.name)}
    assert published == {b"ranker/champion", b"ranker/challenger", b"retrieval/champion"}


def a_lake_of_films(root: Path, bootstrap: str) -> Path:
    """MovieLens in small, ending now: rows that are older than a day are refused."""
    now_ms = time.time_ns() // 1_000_000
    given = ("--path", str(a_movielens(root / "log")), "--bootstrap", bootstrap)
    produced = job("pipelines.datasets", "produce", *given, "--until-ms", str(now_ms))
    assert produced.returncode == 0, produced.stderr
    records = [
        Record(r.topic, r.partition, r.offset, now_ms, r.key, r.value)
        for r in read(bootstrap, topics.EVENTS.name)
    ]
    table = event_rows(records).table
    write_deltalake(str(root / "lake" / "events"), table, partition_by=list(PARTITION_BY))
    return root / "lake"


def test_a_failure_reaches_alertmanager(home: Path, alertmanager: str) -> None:
    Alertmanager.posted.clear()
    code = (
        "import runpy, types\n"
        f"found = runpy.run_path({str(DAGS / 'rankstream_dags.py')!r})\n"
        "task = types.SimpleNamespace(dag_id='weekly_training', task_id='train')\n"
        "found['alert']({'task_instance': task, 'exception': 'exit code 1'})\n"
    )

    python(home, "-c", code, alertmanager=alertmanager)

    ((path, (alert,)),) = Alertmanager.posted
    assert path == "/api/v2/alerts"
    assert alert["labels"]["alertname"] == "BatchFailed"
    assert alert["annotations"]["summary"] == "weekly_training.train: exit code 1"


def test_dags_have_schedules_retries_and_the_alert(home: Path) -> None:
    code = (
        "import json, runpy\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(DAGS)!r})\n"
        "print(json.dumps({'errors': {k: str(v) for k, v in bag.import_errors.items()}, 'dags': {\n"
        "    dag.dag_id: [dag.schedule, dag.catchup, dag.max_active_runs, {t.task_id: [t.retries,\n"
        "    bool(t.on_failure_callback), sorted(t.downstream_task_ids)] for t in dag.tasks}]\n"
        "    for dag in bag.dags.values()}}))\n"
    )

    found = json.loads(python(home, "-c", code).splitlines()[-1])

    assert found["errors"] == {}
    assert found["dags"] == {
        "daily_features": ["30 0 * * *", False, 1, {"batch": [3, True, []]}],
        "weekly_training": [
            "0 3 * * 0",
            False,
            1,
            {"compact": [3, True, ["train"]], "train": [3, True, []]},
        ],
    }
