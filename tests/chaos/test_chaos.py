"""The fault run itself, at a tenth of its length and with fewer kills."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 420


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_nothing_differs_from_the_log_after_kills_restarts_and_a_full_disk(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    size = ("--events", "100000", "--seed", "1", "--kills", "8", "--moves", "3")

    ran = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *size, "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )

    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-4_000:]
    figures = {row["id"]: row["value"] for row in json.loads(out.read_text(encoding="utf-8"))}
    assert figures["stream.chaos.differences"] == 0
    assert figures["stream.chaos.compared"] > 100_000
