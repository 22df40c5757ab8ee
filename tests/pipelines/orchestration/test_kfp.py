"""The pipelines in KFP itself: compiled for a cluster, and run here by its subprocess runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deploy.local.environments import environment
from tests.pipelines.orchestration.lake import DAY, ROOT, TABLES, a_tiny_lake, written

TIMEOUT_S = 600
PIPELINE = ROOT / "pipelines" / "orchestration" / "kfp" / "pipeline.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]


def pipeline(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(environment("kfp")), str(PIPELINE), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_steps_are_tried_again_and_never_answered_from_the_cache(tmp_path: Path) -> None:
    pipeline(tmp_path, "compile", str(tmp_path / "yaml"))

    for name, step in (("daily_features", "daily-batch"), ("weekly_training", "train-all")):
        spec, *_ = yaml.safe_load_all((tmp_path / "yaml" / f"{name}.yaml").read_text())
        task = spec["root"]["dag"]["tasks"][step]
        assert task["retryPolicy"]["maxRetryCount"] == 3
        assert not task.get("cachingOptions")
        (executor,) = spec["deploymentSpec"]["executors"].values()
        assert executor["container"]["image"] == "rankstream/pipelines:latest"
        # The image holds no KFP.
        assert "kfp==" in " ".join(executor["container"]["command"])


def test_the_daily_pipeline_writes_what_is_due(tmp_path: Path) -> None:
    lake, out = a_tiny_lake(tmp_path), tmp_path / "out"
    given = {"lake": lake, "out": out, "until_date": DAY, "home": ROOT, "python": sys.executable}

    pipeline(
        tmp_path,
        *("run", "daily_features"),
        *(part for name, value in given.items() for part in ("--with", f"{name}={value}")),
    )

    assert written(out) == TABLES
