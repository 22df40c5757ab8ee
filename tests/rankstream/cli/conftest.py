"""The command as a person runs it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "200")
    for name in (
        "INGEST_URL",
        "RANKER_TARGET",
        "RANKER_ADMIN_TARGET",
        "EXPERIMENTS_URL",
        "KAFKA_URL",
    ):
        monkeypatch.delenv(f"RANKSTREAM_{name}", raising=False)
    return CliRunner()
