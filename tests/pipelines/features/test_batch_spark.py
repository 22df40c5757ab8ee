"""DuckDB and Spark, each in its own environment, write the same rows of the same log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from deploy.local.environments import environment
from deploy.local.tools import java
from pipelines.features import batch
from rankstream.contracts.events import Event
from tests.parity.events import START_MS, an_event
from tests.parity.strategies import Log, logs
from tests.pipelines.features.test_batch_job import DAY_MS, MIDNIGHT_MS, the_lake

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 600
# A log of some minutes needs no cluster's settings: one partition, no compiled stages.
CONF = """
spark.master                   local[1]
spark.driver.memory            1g
spark.driver.host              127.0.0.1
spark.driver.extraJavaOptions  -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
spark.ui.enabled               false
spark.sql.shuffle.partitions   1
spark.sql.adaptive.enabled     false
spark.sql.codegen.wholeStage   false
spark.sql.codegen.factoryMode  NO_CODEGEN
"""
DAY = "2023-11-15"
TABLES = (*batch.ENTITIES, "labels", "rows")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_S * 2)]


def run(python: Path, engine: str, lake: Path, out: Path, **environ: str) -> None:
    """The command for the day that holds most of the logs."""
    command = [str(python), "-m", "pipelines.features", "batch", "--engine", engine]
    command += ["--lake", str(lake), "--out", str(out)]
    command += ["--from-date", DAY, "--until-date", DAY]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def table_of(folder: Path) -> pa.Table:
    """All its rows, by content."""
    table = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])
    keys = [
        name
        for name in (*batch.KEY, *batch.NAMED, "impression_time_ms")
        if name in table.column_names
    ]
    return table.sort_by([(name, "ascending") for name in keys])


def many_logs() -> list[list[Event]]:
    """Some hypothesis-drawn logs."""
    found: list[list[Event]] = []

    @seed(5)
    @settings(
        max_examples=40, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(logs(), st.integers(0, DAY_MS))
    def draw(log: Log, later_ms: int) -> None:
        moved = [
            event.model_copy(update={"event_time_ms": event.event_time_ms + later_ms})
            for event in log.events
        ]
        found.append(moved)

    draw()
    return found


def one_log() -> list[Event]:
    """The drawn logs as one: each has ids, users and requests of its own."""
    events: list[Event] = []
    for n, log in enumerate(many_logs()):
        for event in log:
            said = event.model_dump()
            named = {
                "event_id": f"{n:08x}{event.event_id[8:]}",
                "user_id": f"{event.user_id}{n % 7}",
            }
            if said.get("request_id"):
                named["request_id"] = f"{said['request_id']}-{n}"
            if said.get("category") and n % 3 == 0:
                named["category"] = "é🎬"
            events.append(event.model_copy(update=named))
    end_ms = MIDNIGHT_MS + 4 * DAY_MS
    return [*events, an_event("visit", 1 << 40, after_ms=end_ms - START_MS)]


def test_both_engines_write_the_same_rows(tmp_path: Path) -> None:
    lake = the_lake(tmp_path, one_log())
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text(CONF)
    home = java(ROOT / ".run" / "tools").resolve().parents[1]

    run(Path(sys.executable), "duckdb", lake, tmp_path / "duckdb")
    run(
        environment("spark"),
        "spark",
        lake,
        tmp_path / "spark",
        JAVA_HOME=str(home),
        SPARK_CONF_DIR=str(conf),
        SPARK_LOCAL_IP="127.0.0.1",
    )

    rows = 0
    for table in TABLES:
        ours = table_of(tmp_path / "duckdb" / table / f"date={DAY}")
        theirs = table_of(tmp_path / "spark" / table / f"date={DAY}")
        assert ours.column_names == theirs.column_names
        rows += ours.num_rows
        for field in ours.schema:
            a, b = ours[field.name], theirs[field.name]
            assert b.type == field.type, field.name
            if field.type == pa.float32():
                # The engines' logarithms may differ in the last bit.
                np.testing.assert_array_max_ulp(a.to_numpy(), b.to_numpy(), maxulp=1)
            else:
                assert a.to_pylist() == b.to_pylist(), (table, field.name)
    assert rows > 20, rows
