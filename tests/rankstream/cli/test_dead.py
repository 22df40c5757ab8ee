"""`rankstream dead`: what it lists, and what a replay sends, notes and refuses."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner

from rankstream import cli, topics
from rankstream.adapters.dead_letters import Found, Kept, Replay
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.cli import dead
from rankstream.client import Client, Rejection, SendResult
from rankstream.contracts.codec import decode_batch, encode_batch
from rankstream.contracts.events import Visit
from rankstream.contracts.ids import partition_of
from rankstream.pb import events_pb2 as pb
from rankstream.testing import FakeEventLog

A_VISIT = b'{"kind":"visit","user_id":"u","event_time_ms":5,"event_id":"%s"}'


def json_visit(number: int) -> bytes:
    return A_VISIT % str(UUID(int=number)).encode()


def a_letter(**fields: Any) -> pb.DeadLetter:
    base: dict[str, Any] = {
        "dead_letter_id": "d1",
        "code": "invalid_event",
        "reason": "invalid_event: [bold]why",
        "original": json_visit(1),
        "topic": "events",
        "partition": -1,
        "refused_ms": 5,
        "content_type": "application/json",
        "events": 1,
        "headers": [{"name": "trace", "value": b"\xff"}],
    }
    return pb.DeadLetter(**(base | fields))


def keep(monkeypatch: pytest.MonkeyPatch, *letters: Kept) -> None:
    async def read(_kafka_url: str) -> Found:
        return Found(list(letters), [7])

    monkeypatch.setattr(dead, "read_letters", read)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeEventLog:
    fake = FakeEventLog()
    monkeypatch.setattr(dead, "EventProducer", lambda _url, **_options: fake)
    return fake


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What goes to ingest, which accepts all of it."""
    sent: list[bytes] = []

    def send_body(_self: Client, body: bytes) -> SendResult:
        sent.append(body)
        return SendResult(accepted=len(json.loads(body)))

    monkeypatch.setattr(Client, "send_body", send_body)
    return sent


def notes(log: FakeEventLog) -> list[pb.DeadLetter]:
    return [pb.DeadLetter.FromString(value) for value in log.values(topics.EVENTS_DEAD.name)]


def test_letters_are_listed_by_code_with_what_was_sent_again(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Kept(a_letter(), [Replay(86_400_000, 1, 0, "ingest")])
    keep(monkeypatch, sent, Kept(a_letter(dead_letter_id="d2", code="unknown_kind")))

    human = runner.invoke(cli.app, ["dead", "list"])
    by_code = runner.invoke(cli.app, ["dead", "list", "--code", "unknown_kind", "--json"])
    still_open = runner.invoke(cli.app, ["dead", "list", "--open", "--json"])

    for text in ("[bold]why", "1970-01-02 00:00:00 UTC", "2 in all, 1 sent again"):
        assert text in human.stdout
    assert "offset 7 is no DeadLetter" in human.stderr
    assert [letter["dead_letter_id"] for letter in json.loads(by_code.stdout)] == ["d2"]
    assert [letter["dead_letter_id"] for letter in json.loads(still_open.stdout)] == ["d2"]


def test_a_letter_is_shown_with_its_bytes_headers_and_replays(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(monkeypatch, Kept(a_letter(original=b"\xff\x00oops"), [Replay(5, 1, 2, "ingest")]))

    result = runner.invoke(cli.app, ["dead", "show", "d1", "--json"])

    shown = json.loads(result.stdout)
    assert shown["original"].encode("latin-1") == b"\xff\x00oops"
    assert shown["headers"] == [["trace", "\xff"]]
    assert shown["replays"] == [{"time_ms": 5, "events": 1, "refused": 2, "to": "ingest"}]


def test_an_unknown_letter_is_not_found(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(monkeypatch, Kept(a_letter()))

    result = runner.invoke(cli.app, ["dead", "show", "d9"])

    assert result.exit_code == 1
    assert "not_found: no dead letter d9" in result.stderr


def test_a_replay_of_json_goes_to_ingest_and_is_noted(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, log: FakeEventLog, bodies: list[bytes]
) -> None:
    keep(monkeypatch, Kept(a_letter()), Kept(a_letter(dead_letter_id="d2")))

    dry = runner.invoke(cli.app, ["dead", "replay", "--dry-run"])
    assert (dry.exit_code, bodies, log.records) == (0, [], [])
    result = runner.invoke(cli.app, ["dead", "replay", "--id", "d1", "--json"])

    assert result.exit_code == 0
    assert bodies == [b"[" + json_visit(1) + b"]"]
    assert json.loads(result.stdout)[0]["done"] == "1 event(s) to ingest"
    (note,) = notes(log)
    assert (note.dead_letter_id, note.replay.events, note.replay.to) == ("d1", 1, "ingest")


def test_what_was_sent_again_is_left_out_unless_asked_for(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, log: FakeEventLog, bodies: list[bytes]
) -> None:
    keep(monkeypatch, Kept(a_letter(), [Replay(5, 1, 0, "ingest")]))

    once = runner.invoke(cli.app, ["dead", "replay"])
    assert (once.exit_code, bodies) == (0, [])
    runner.invoke(cli.app, ["dead", "replay", "--again"])

    assert len(bodies) == 1


def test_what_does_not_fit_yet_is_told_not_sent_and_not_noted(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, log: FakeEventLog, bodies: list[bytes]
) -> None:
    keep(monkeypatch, Kept(a_letter(original=b'{"kind":"?"}')))

    result = runner.invoke(cli.app, ["dead", "replay"])

    assert result.exit_code == 1
    assert "1 still refused: unknown_kind" in result.stdout
    assert (bodies, log.records) == ([], [])


def test_what_ingest_refuses_is_told(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, log: FakeEventLog
) -> None:
    keep(monkeypatch, Kept(a_letter()))
    still = SendResult(0, 1, (Rejection(0, "", "event_time_out_of_range", "too old"),))
    monkeypatch.setattr(Client, "send_body", lambda _self, _body: still)

    result = runner.invoke(cli.app, ["dead", "replay"])

    assert result.exit_code == 1
    assert "1 still refused: too old" in result.stdout


@pytest.mark.integration
def test_refused_rows_are_read_from_the_log_and_sent_back_with_their_headers(
    runner: CliRunner, kafka_topics: str
) -> None:
    visits = [
        Visit(event_id=str(UUID(int=number)), user_id="u", event_time_ms=5) for number in range(3)
    ]
    letter = a_letter(original=encode_batch(visits), rows=[2], partition=1)
    send(kafka_topics, letter.SerializeToString(), b"\xff\xff")
    command = ["--kafka-url", kafka_topics, "dead"]

    before = runner.invoke(cli.app, [*command, "replay", "--json"])
    after = runner.invoke(cli.app, [*command, "replay", "--json"])
    listed = runner.invoke(cli.app, [*command, "list", "--json"])

    partition = partition_of("u", topics.EVENTS.partitions)
    assert json.loads(before.stdout)[0]["done"] == f"1 event(s) to events[{partition}]"
    assert json.loads(after.stdout) == []
    (record,) = read(kafka_topics, topics.EVENTS.name)
    assert (record.partition, len(decode_batch(record.value or b""))) == (partition, 1)
    assert record.headers == (("trace", b"\xff"), ("dead-letter", b"d1"))
    (shown,) = json.loads(listed.stdout)
    assert shown["replays"][0]["to"] == f"events[{partition}]"
    assert "offset 1 is no DeadLetter" in listed.stderr


def send(bootstrap: str, *letters: bytes) -> None:
    async def append() -> None:
        producer = EventProducer(bootstrap)
        for letter in letters:
            await producer.send(topics.EVENTS_DEAD.name, letter)
        await producer.flush_and_close()

    asyncio.run(append())


def read(bootstrap: str, topic: str) -> list[Record]:
    async def poll() -> list[Record]:
        reader = LogReader(bootstrap, [topic])
        records: list[Record] = []
        while not reader.caught_up:
            records += await reader.poll(100, 0.2)
        await reader.close()
        return records

    return asyncio.run(poll())
