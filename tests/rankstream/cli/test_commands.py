"""The `rankstream` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankstream import cli
from rankstream.client import Client, RankedItem, Ranking, Rejection, SendResult
from rankstream.errors import UnknownAnswer

RANKING = Ranking(
    request_id="r1",
    items=(RankedItem("i1", 0.5, 1.0, "[drama]"),),
    model_id="m1",
    index_id="",
    experiment_id="",
    variant="",
    degraded=("features_timeout",),
    served_time_ms=5,
    candidates=1,
    unknown_item_ids=(),
)


def test_send_tells_counts_and_refused_lines(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text("{}\n")
    sent = SendResult(3, 1, (Rejection(0, "e1", "invalid_event", "why [red]"),))
    monkeypatch.setattr(Client, "send_lines", lambda _self, _lines: sent)

    human = runner.invoke(cli.app, ["send", str(file)])
    machine = runner.invoke(cli.app, ["send", str(file), "--json"])

    assert (human.exit_code, machine.exit_code) == (1, 1)
    assert "3 events accepted, 1 rejected" in human.stdout
    assert "why [red]" in human.stdout
    assert json.loads(machine.stdout)["rejections"][0]["code"] == "invalid_event"


def test_recommend_prints_the_slate_and_what_was_missing(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "recommend", lambda _self, _user, **_options: RANKING)

    human = runner.invoke(cli.app, ["recommend", "u1", "-n", "1"])
    machine = runner.invoke(cli.app, ["recommend", "u1", "--json"])

    assert human.exit_code == 0
    for text in ("i1", "[drama]", "0.5000", "request_id=r1", "features_timeout"):
        assert text in human.stdout
    assert json.loads(machine.stdout)["items"][0]["item_id"] == "i1"


def test_a_refusal_goes_to_stderr_with_exit_code_1(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(_self: Client, request_id: str) -> None:
        raise UnknownAnswer(f"unknown_answer: {request_id}")

    monkeypatch.setattr(Client, "explain", explain)

    result = runner.invoke(cli.app, ["explain", "r9"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "unknown_answer: r9" in result.stderr
