"""Daily features and weekly training on Airflow 3: it says when, the commands say what.

Airflow runs in an environment of its own (`make env-airflow`); each task is a command in the
Python of rankstream, found by these Airflow Variables (or AIRFLOW_VAR_RANKSTREAM_HOME, ...):

    rankstream_home          checkout, or /app in the image: where `python -m pipelines` works
    rankstream_python        its Python
    rankstream_lake          folder of Delta tables
    rankstream_batch         folder that daily features are written to
    rankstream_engine        duckdb or spark
    rankstream_artifacts     folder of models
    rankstream_registry      sqlite:///... or postgresql://... without a password: docs/batch.md
    rankstream_bootstrap     Kafka, host:port
    rankstream_alertmanager  http://host:9093; without it a failure is in Airflow alone

Both commands take up where they stopped, so a retry costs only what is missing, and a day that
Airflow missed is made up for by the next run: no catch-up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.request import Request, urlopen

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Variable

ALERT_TIMEOUT_S = 10.0


def alert(context: Mapping[str, Any]) -> None:
    """Tell Alertmanager that a task has failed for good."""
    address = Variable.get("rankstream_alertmanager", default="")
    if not address:
        return
    task = context["task_instance"]
    labels = {"alertname": "BatchFailed", "severity": "page", "dag": task.dag_id}
    body = {
        "labels": {**labels, "task": task.task_id},
        "annotations": {"summary": f"{task.dag_id}.{task.task_id}: {context.get('exception')}"},
    }
    request = Request(
        f"{address}/api/v2/alerts",
        json.dumps([body]).encode(),
        {"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=ALERT_TIMEOUT_S):
        pass


def setting(name: str, default: str) -> str:
    """An Airflow Variable, read when the task runs and not when the file is parsed."""
    return f"{{{{ var.value.get('rankstream_{name}', '{default}') }}}}"


def command(task_id: str, *arguments: str) -> BashOperator:
    """A task that runs `python -m` in the Python of rankstream."""
    return BashOperator(
        task_id=task_id,
        bash_command=f"exec {setting('python', '.run/venv/bin/python')} -m " + " ".join(arguments),
        cwd=setting("home", "/app"),
        append_env=True,
    )


LAKE = setting("lake", "/var/lib/rankstream/lake")
COMMON: dict[str, Any] = {
    "start_date": datetime(2020, 1, 1, tzinfo=UTC),
    "catchup": False,
    # Two runs would do the same work twice.
    "max_active_runs": 1,
    "tags": ["rankstream"],
    "doc_md": __doc__,
    "default_args": {
        "owner": "rankstream",
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "execution_timeout": timedelta(hours=4),
        "on_failure_callback": alert,
    },
}

# Half past midnight: what is late has arrived, by the lateness and the lake's flush.
with DAG("daily_features", schedule="30 0 * * *", **COMMON):
    command(
        "batch",
        "pipelines.features batch",
        f"--lake {LAKE}",
        f"--out {setting('batch', '/var/lib/rankstream/batch')}",
        f"--engine {setting('engine', 'duckdb')}",
        "--until-date {{ ds }}",
    )

with DAG("weekly_training", schedule="0 3 * * 0", **COMMON):
    compact = command("compact", "pipelines.features lake compact", f"--lake {LAKE}")
    train = command(
        "train",
        "pipelines run",
        f"--lake {LAKE}",
        f"--artifacts {setting('artifacts', '/var/lib/rankstream/artifacts')}",
        f"--registry {setting('registry', 'sqlite:////var/lib/rankstream/registry.db')}",
        f"--bootstrap {setting('bootstrap', '127.0.0.1:9092')}",
        "--why 'weekly training'",
    )
    compact >> train
