"""Dead letters: notes on them, what of them fits by now, and that a replay counts once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from rankstream import topics
from rankstream.adapters.dead_letters import append, collect, mended, note
from rankstream.contracts.codec import decode_batch, encode_batch, encode_item, event_at
from rankstream.contracts.events import Event, ItemUpdate, Rate, Visit
from rankstream.contracts.ids import partition_of
from rankstream.contracts.record import Record
from rankstream.pb import events_pb2 as pb
from rankstream.stream.partition import FoldSettings, Outputs, UserPartition
from rankstream.testing import FakeEventLog

T_MS = 1_800_000_000_000
DAY_MS = 86_400_000
NO_ITEMS: dict[str, int] = {}


def a_visit(number: int, user: str = "u", time_ms: int = T_MS) -> Visit:
    return Visit(event_id=str(UUID(int=number)), user_id=user, event_time_ms=time_ms)


def a_rating(number: int, *, time_ms: int = T_MS) -> Rate:
    return Rate(
        event_id=str(UUID(int=number)), user_id="u", item_id="i", value=5.0, event_time_ms=time_ms
    )


def a_letter(**fields: Any) -> pb.DeadLetter:
    base: dict[str, Any] = {
        "dead_letter_id": "events/2/9",
        "code": "invalid_event",
        "topic": "events",
        "partition": 2,
        "offset": 9,
        "content_type": "application/x-protobuf",
        "events": 1,
    }
    return pb.DeadLetter(**(base | fields))


def a_record(value: bytes, offset: int) -> Record:
    return Record(topics.EVENTS_DEAD.name, 0, offset, 1_000 + offset, b"", value)


def events_of(record: bytes) -> list[Event]:
    columns = decode_batch(record)
    return [event_at(columns, row) for row in range(len(columns))]


async def test_a_note_belongs_to_its_letter_and_a_letter_appended_twice_is_one() -> None:
    log = FakeEventLog()
    letter, other = a_letter(), a_letter(dead_letter_id="events/0/1")
    await note(letter, log, events=3, refused=1, to="events[2]")
    await note(a_letter(dead_letter_id="gone"), log, events=1, refused=0, to="ingest")
    said = log.values(topics.EVENTS_DEAD.name)
    values = [letter.SerializeToString(), letter.SerializeToString(), other.SerializeToString()]

    found = collect(a_record(v, at) for at, v in enumerate([*values, *said, b"\xff\xff"]))

    assert [kept.letter for kept in found.letters] == [letter, other]
    (replay,) = found.letters[0].replays
    assert (replay.time_ms, replay.events, replay.refused, replay.to) == (1_003, 3, 1, "events[2]")
    assert found.letters[1].replays == []
    assert found.unreadable == [5]


def test_only_the_refused_rows_go_and_each_to_its_users_partition() -> None:
    visits = [a_visit(number, user=f"user-{number}") for number in range(8)]
    letter = a_letter(original=encode_batch(visits), rows=[1, 3, 5])

    sending = mended(letter, partitions=4, newest_ms=NO_ITEMS)

    assert sending.events == 3
    assert sending.refused == []
    sent = {}
    for topic, key, value, partition in sending.records:
        assert (topic, key) == ("events", b"")
        for event in events_of(value):
            assert isinstance(event, Visit)
            assert partition == partition_of(event.user_id, 4)
            sent[event.event_id] = event
    assert sent == {visits[row].event_id: visits[row] for row in (1, 3, 5)}


def test_rows_that_do_not_fit_yet_are_told_and_kept_back() -> None:
    batch = pb.EventBatch.FromString(encode_batch([a_visit(number) for number in range(3)]))
    kinds = [99, *batch.kind[1:]]
    del batch.kind[:]
    batch.MergeFrom(pb.EventBatch.FromString(b"\x12\x03" + bytes(kinds)))
    batch.event_time_ms[1] = -1
    letter = a_letter(original=batch.SerializeToString(), rows=[0, 1])

    sending = mended(letter, partitions=4, newest_ms=NO_ITEMS)

    assert (sending.records, sending.events, len(sending.refused)) == ([], 0, 2)
    assert "kind 99" in sending.refused[0]


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (a_letter(original=b"\xff\xff"), "is not an EventBatch"),
        (a_letter(original=b"oops", partition=-1), "Invalid JSON"),
        (a_letter(original=b"[oops", topic="events.json"), "Expecting value"),
        (a_letter(original=b"\xff", topic="items"), "not an Item"),
        (a_letter(original=b"", topic="feature-updates"), "written by our own services"),
    ],
)
def test_what_is_still_no_event_is_told_and_nothing_is_sent(
    letter: pb.DeadLetter, why: str
) -> None:
    sending = mended(letter, partitions=4, newest_ms=NO_ITEMS)

    assert (sending.records, sending.bodies) == ([], [])
    assert len(sending.refused) == 1
    assert why in sending.refused[0]


def test_only_the_refused_events_of_an_array_go_with_their_own_bytes() -> None:
    good = b'{ "kind":"visit","user_id":"u","event_time_ms":5,"event_id":"%s"}'
    parts = [good % str(UUID(int=number)).encode() for number in range(3)]
    original = b"[" + b" , ".join([parts[0], parts[1], b"{}", parts[2]]) + b"]"
    letter = a_letter(original=original, topic="events.json", rows=[1, 2])

    sending = mended(letter, partitions=4, newest_ms=NO_ITEMS)

    assert (sending.bodies, sending.events, len(sending.refused)) == ([parts[1]], 1, 1)


def test_feedback_without_an_impression_is_in_the_log_already() -> None:
    letter = a_letter(code="unmatched", original=encode_batch([a_visit(1)]))

    sending = mended(letter, partitions=4, newest_ms=NO_ITEMS)

    assert (sending.records, sending.events, sending.refused) == ([], 0, [])
    assert "only its impression never came" in sending.to


def test_an_item_goes_back_unless_it_has_been_updated_since() -> None:
    value = encode_item(ItemUpdate(item_id="i1", updated_ms=T_MS))
    letter = a_letter(original=value, topic="items")

    fresh = mended(letter, partitions=4, newest_ms={"i1": T_MS})
    outdated = mended(letter, partitions=4, newest_ms={"i1": T_MS + 1})

    assert fresh.records == [("items", b"i1", value, None)]
    assert (outdated.records, outdated.refused) == ([], [])
    assert "updated since" in outdated.to


async def test_a_replay_carries_the_headers_and_the_letters_id_once() -> None:
    log = FakeEventLog()
    headers = [{"name": "trace", "value": b"1"}, {"name": "dead-letter", "value": b"older"}]
    letter = a_letter(original=encode_batch([a_visit(1)]), headers=headers)

    await append(mended(letter, partitions=4, newest_ms=NO_ITEMS), letter, log)

    (record,) = log.records
    assert record.headers == (("trace", b"1"), ("dead-letter", b"events/2/9"))


class Stream:
    """The fold of one partition, at the log's own time."""

    def __init__(self) -> None:
        self.state = UserPartition(0, 1, FoldSettings())

    def fold(self, record: bytes, *, at_ms: int) -> Outputs:
        offset = self.state.offset + 1
        return self.state.fold([Record(topics.EVENTS.name, 0, offset, at_ms, b"", record)])


def test_an_event_sent_again_twice_counts_once() -> None:
    stream = Stream()
    from_the_future = encode_batch([a_rating(1, time_ms=T_MS + 120_000)])
    refused = stream.fold(from_the_future, at_ms=T_MS)
    (dead,) = refused.dead
    letter = pb.DeadLetter.FromString(dead)
    ((_, _, again, _),) = mended(letter, partitions=1, newest_ms=NO_ITEMS).records

    first = stream.fold(again, at_ms=T_MS + 120_000)
    rows = stream.state.rows(["u"])
    second = stream.fold(again, at_ms=T_MS + 130_000)

    assert (refused.counts.refused, first.counts.folded) == (1, 1)
    assert (second.counts.folded, second.counts.duplicates) == (0, 1)
    assert stream.state.rows(["u"]) == rows
    assert second.updates == {}


def test_an_event_sent_again_days_later_is_late_and_changes_nothing() -> None:
    stream = Stream()
    letter = a_letter(original=encode_batch([a_rating(1)]), rows=[0])
    stream.fold(encode_batch([a_visit(2, time_ms=T_MS + 3 * DAY_MS)]), at_ms=T_MS + 3 * DAY_MS)
    rows = stream.state.rows(["u"])
    ((_, _, again, _),) = mended(letter, partitions=1, newest_ms=NO_ITEMS).records

    outputs = [stream.fold(again, at_ms=T_MS + 3 * DAY_MS) for _ in range(2)]

    assert [out.counts.late for out in outputs] == [1, 1]
    assert all(out.updates == {} for out in outputs)
    assert [pb.LabelBatch.FromString(out.label_batch).user_id for out in outputs] == [[], []]
    assert stream.state.rows(["u"]) == rows
