"""The `rankstream` command: what it prints, its exit codes, and what a replay sends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from rankstream import cli
from rankstream.adapters.kafka import EventProducer, LogReader
from rankstream.client import Client, RankedItem, Ranking, Rejection, SendResult
from rankstream.contracts.codec import decode_batch, encode_batch, event_at
from rankstream.contracts.events import Visit
from rankstream.errors import InvalidBatch, UnknownAnswer
from rankstream.pb import events_pb2 as pb

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


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("INGEST_URL", "RANKER_TARGET", "EXPERIMENTS_URL", "KAFKA_URL"):
        monkeypatch.delenv(f"RANKSTREAM_{name}", raising=False)
    return CliRunner()


def a_visit(number: int) -> Visit:
    return Visit(event_id=str(UUID(int=number)), user_id="u", event_time_ms=5)


def a_letter(**fields: Any) -> pb.DeadLetter:
    base: dict[str, Any] = {
        "dead_letter_id": "d1",
        "code": "invalid_event",
        "reason": "invalid_event: [bold]why",
        "original": b'{"kind":"?"}',
        "topic": "events",
        "partition": -1,
        "refused_ms": 5,
        "content_type": "application/json",
        "events": 1,
    }
    return pb.DeadLetter(**(base | fields))


def keep_letters(monkeypatch: pytest.MonkeyPatch, *letters: pb.DeadLetter) -> None:
    async def read(_kafka_url: str) -> list[pb.DeadLetter]:
        return list(letters)

    monkeypatch.setattr(cli, "read_letters", read)


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


def test_dead_letters_are_listed_by_code(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_letters(monkeypatch, a_letter(), a_letter(dead_letter_id="d2", code="unknown_kind"))

    human = runner.invoke(cli.app, ["dead", "list"])
    machine = runner.invoke(cli.app, ["dead", "list", "--code", "unknown_kind", "--json"])

    assert "[bold]why" in human.stdout
    assert "2 in all" in human.stdout
    assert [letter["dead_letter_id"] for letter in json.loads(machine.stdout)] == ["d2"]


def test_a_dead_letter_is_shown_with_its_bytes(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_letters(monkeypatch, a_letter(original=b"\xff\x00oops"))

    result = runner.invoke(cli.app, ["dead", "show", "d1", "--json"])

    assert json.loads(result.stdout)["original"].encode("latin-1") == b"\xff\x00oops"


def test_an_unknown_dead_letter_is_not_found(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_letters(monkeypatch, a_letter())

    result = runner.invoke(cli.app, ["dead", "show", "d9"])

    assert result.exit_code == 1
    assert "not_found: no dead letter d9" in result.stderr


def test_replay_sends_the_original_json_to_ingest(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_letters(monkeypatch, a_letter(), a_letter(dead_letter_id="d2"))
    bodies: list[bytes] = []

    def send_body(_self: Client, body: bytes) -> SendResult:
        bodies.append(body)
        return SendResult(accepted=1)

    monkeypatch.setattr(Client, "send_body", send_body)

    dry = runner.invoke(cli.app, ["dead", "replay", "--dry-run"])
    assert bodies == []
    result = runner.invoke(cli.app, ["dead", "replay", "--id", "d1", "--json"])

    assert (dry.exit_code, result.exit_code) == (0, 0)
    assert bodies == [b'{"kind":"?"}']
    assert json.loads(result.stdout)[0]["done"] == "1 accepted, 0 rejected by ingest"


def test_a_replay_that_is_refused_again_says_so_and_fails(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_letters(monkeypatch, a_letter())
    still = SendResult(0, 1, (Rejection(0, "", "unknown_kind", "unknown_kind: ?"),))
    monkeypatch.setattr(Client, "send_body", lambda _self, _body: still)

    result = runner.invoke(cli.app, ["dead", "replay"])

    assert result.exit_code == 1
    assert "unknown_kind: ?" in result.stdout


def test_only_the_refused_rows_of_a_record_are_sent_again() -> None:
    visits = [a_visit(number) for number in range(4)]
    letter = a_letter(original=encode_batch(visits), rows=[1, 3], partition=2)

    record, events, refused = cli.mended_record(letter)

    columns = decode_batch(record)
    assert [event_at(columns, row) for row in range(events)] == [visits[1], visits[3]]
    assert refused == []


def test_rows_that_do_not_fit_yet_are_told_and_kept_back() -> None:
    batch = pb.EventBatch.FromString(encode_batch([a_visit(number) for number in range(3)]))
    kinds = [99, *batch.kind[1:]]
    del batch.kind[:]
    batch.MergeFrom(pb.EventBatch.FromString(b"\x12\x03" + bytes(kinds)))
    batch.event_time_ms[1] = -1
    letter = a_letter(original=batch.SerializeToString(), rows=[0, 1], partition=2)

    record, events, refused = cli.mended_record(letter)

    assert (record, events, len(refused)) == (b"", 0, 2)
    assert "kind 99" in refused[0]


def test_a_record_that_is_no_batch_is_still_refused() -> None:
    with pytest.raises(InvalidBatch):
        cli.mended_record(a_letter(original=b"\xff\xff"))


@pytest.mark.integration
async def test_dead_letters_are_read_from_the_log_and_records_sent_back(
    kafka_topics: str,
) -> None:
    record = encode_batch([a_visit(number) for number in range(3)])
    letter = a_letter(original=record, rows=[2], partition=1, content_type="application/x-protobuf")
    producer = EventProducer(kafka_topics)
    await producer.send("events.dead", letter.SerializeToString())

    (found,) = await cli.read_letters(kafka_topics)
    with Client() as client:
        done = await cli._send_again(found, client, producer, dry_run=False)
    await producer.flush_and_close()
    reader = LogReader(kafka_topics, ["events"])
    sent = []
    while not reader.caught_up:
        sent += await reader.poll(10, 0.2)
    await reader.close()

    assert found == letter
    assert done == ("1 event(s) to events[1]", 0)
    assert [(r.partition, len(decode_batch(r.value or b""))) for r in sent] == [(1, 1)]
