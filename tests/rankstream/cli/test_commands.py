"""The `rankstream` command: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankstream import cli
from rankstream.client import (
    Client,
    Contribution,
    Difference,
    ExplainedItem,
    Explanation,
    PolicyStep,
    RankedItem,
    Ranking,
    Rejection,
    Reproduction,
    SendResult,
)
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


EXPLANATION = Explanation(
    request_id="r1",
    user_id="u1",
    served_time_ms=5,
    model_id="m1",
    index_id="",
    spec_id="s",
    experiment_id="",
    variant="",
    items=(
        ExplainedItem(
            "i1", 0.0, 0.5, 0.25, (Contribution("ctr", 1.0, 2.0),), 6, 0.02, 1, ("towers",)
        ),
    ),
    degraded=(),
    method="occlusion",
    policy="cold:0:p",
    policy_hash="abcd",
    steps=(PolicyStep("rules", (0,), (6,), (2,), 3), PolicyStep("thompson", (0,), (2,), (0,), 0)),
    propensity_draws=400,
    other_model_id="m2",
    cut_by="m1",
    cut_from=500,
)


def test_explain_shows_every_step_of_the_policy(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "explain", lambda _self, _id: EXPLANATION)

    human = runner.invoke(cli.app, ["explain", "r1"])
    machine = runner.invoke(cli.app, ["explain", "r1", "--json"])

    for text in (
        "0.25 ± 0.02",
        "rules",
        "#1: place 7 to 3",
        "#1: place 3 to 1",
        "team B",
        "towers",
        "model_id=m2",
        "cut_from=500",
    ):
        assert text in human.stdout
    assert [step["removed"] for step in json.loads(machine.stdout)["steps"]] == [3, 0]


def a_reproduction(*differences: Difference) -> Reproduction:
    return Reproduction("r1", "m1", "0" * 64, "d", "p", "h", 2, 30, differences)


def test_reproduce_says_equal_or_what_differs(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"r1": a_reproduction(), "r2": a_reproduction(Difference("scores_differ", "1 of 2"))}
    monkeypatch.setattr(Client, "reproduce", lambda _self, request_id: told[request_id])

    equal = runner.invoke(cli.app, ["reproduce", "r1"])
    different = runner.invoke(cli.app, ["reproduce", "r2"])
    machine = runner.invoke(cli.app, ["reproduce", "r2", "--json"])

    assert (equal.exit_code, different.exit_code, machine.exit_code) == (0, 1, 1)
    assert "2 of 30 candidates, model m1" in equal.stdout
    assert "equal: scores" in equal.stdout
    assert "scores_differ: 1 of 2" in different.stderr
    assert json.loads(machine.stdout)["differences"][0]["code"] == "scores_differ"


def test_reproduce_looks_for_older_answers_in_the_log(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_self: Client, request_id: str, record: bytes = b"") -> Reproduction:
        if record != b"slate of r1":
            raise UnknownAnswer(f"unknown_answer: {request_id}")
        return a_reproduction()

    async def find(_kafka_url: str, request_id: str) -> bytes | None:
        return b"slate of r1" if request_id == "r1" else None

    monkeypatch.setattr(Client, "reproduce", asked)
    monkeypatch.setattr("rankstream.cli.reproduce.find_served", find)

    found = runner.invoke(cli.app, ["reproduce", "r1"])
    nowhere = runner.invoke(cli.app, ["reproduce", "r2"])

    assert (found.exit_code, nowhere.exit_code) == (0, 1)
    assert "unknown_answer: r2" in nowhere.stderr
