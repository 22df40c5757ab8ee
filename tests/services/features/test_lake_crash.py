"""A writer that is killed at any moment: the next one goes on, and every record is there once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from deltalake import DeltaTable

from tests.services.features.label_log import a_label_log
from tests.services.features.lake_writer import RECORDS, ids

ROOT = Path(__file__).resolve().parents[3]
KILLS = 5
CHILD_TIMEOUT_S = 120


def start(lake: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.services.features.lake_writer", str(lake)], cwd=ROOT
    )


def commits(lake: Path) -> int:
    return len(list(lake.glob("*/_delta_log/*.json")))


def kill_after(child: subprocess.Popen[bytes], lake: Path, more: int) -> None:
    """SIGKILL once so many more commits are there; where in the next one is left to chance."""
    until = commits(lake) + more
    while commits(lake) < until and child.poll() is None:
        try:
            child.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    child.wait()


def test_a_killed_writer_neither_doubles_nor_loses_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    killed = 0

    for more in rng.integers(5, 25, KILLS).tolist():
        child = start(tmp_path)
        kill_after(child, tmp_path, more)
        killed += child.returncode == -9
    last = start(tmp_path)

    assert last.wait(timeout=CHILD_TIMEOUT_S) == 0
    assert killed >= 3
    events = DeltaTable(str(tmp_path / "events")).to_pyarrow_table()
    assert events.num_rows == len(ids())
    assert set(events["event_id"].to_pylist()) == ids()
    labels = DeltaTable(str(tmp_path / "labels")).to_pyarrow_table()
    names = ("partition", "user_id", "item_id", "impression_time_ms", "status", "clicked")
    found = zip(*(labels[name].to_pylist() for name in (*names, "source_offset")), strict=True)
    wanted = a_label_log(1, records=RECORDS, partitions=1)
    assert sorted(found) == sorted(wanted.rows)
