"""A training that waits for an alert runs if a check fails, and not for want of data."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pipelines.__main__ import app
from pipelines.alerts import CHECKS, failing_checks
from rankstream.errors import DependencyUnavailable
from services.monitor.report import CheckReport, Report

URL = "http://monitor:8085/"


def a_check(check: str, verdict: str, value: float | None = 0.3) -> CheckReport:
    return CheckReport.model_validate(
        {
            "check": check,
            "subject": {"model": "m1", "feature": "item_ctr"},
            "verdict": verdict,
            "value": value,
            "threshold": 0.2,
            "n": 1_000,
            "reason": "",
        }
    )


def answering(*checks: CheckReport, status: int = 200, body: str = "") -> httpx.Client:
    report = Report(
        as_of_ms=1,
        window_ms=1,
        verdicts={},
        checks=checks,
        models=(),
        calibration=(),
        labels={},
        skipped={},
    )

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://monitor:8085/v1/report"
        return httpx.Response(status, text=body or report.model_dump_json())

    return httpx.Client(transport=httpx.MockTransport(answer))


def test_a_check_that_fails_is_told_with_its_numbers() -> None:
    client = answering(
        a_check("psi_excess", "fail"),
        a_check("psi_excess", "pass", 0.1),
        a_check("ece_excess", "inconclusive", None),
        a_check("ece_excess", "error", None),
        a_check("group_lag_records", "fail"),
    )

    found = failing_checks(URL, CHECKS, client=client)

    assert found == ["psi_excess{feature=item_ctr, model=m1} 0.3 (limit 0.2)"]


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (answering(status=503), "503 Service Unavailable"),
        (answering(body="[]"), "validation error"),
    ],
)
def test_a_monitor_that_says_nothing_is_no_alert_and_no_quiet(
    client: httpx.Client, reason: str
) -> None:
    with pytest.raises(DependencyUnavailable, match=f"no report from the monitor .*{reason}"):
        failing_checks(URL, CHECKS, client=client)


def test_nothing_is_trained_while_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.__main__.failing_checks", lambda url, names, client: [])
    artifacts = tmp_path / "artifacts"

    done = CliRunner().invoke(
        app,
        [
            *("run", "--lake", str(tmp_path), "--artifacts", str(artifacts)),
            *("--registry", f"sqlite:///{tmp_path}/registry.db", "--if-alert", URL),
        ],
    )

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"trained": False, "why": f"no check fails at {URL}"}
    assert list(tmp_path.iterdir()) == []
