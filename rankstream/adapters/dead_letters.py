"""Dead letters in the log: what was refused, what became of it, and how it is sent again.

In:  topic `events.dead`.    Out: the topic that a letter was going to, and a note that it was sent.
Sending again is safe at any time: an `event_id` counts once while the stream remembers it, and an
event that comes after that is late, so it reaches the lake and changes nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from rankstream import topics
from rankstream.adapters.log_reader import LogReader
from rankstream.contracts.bodies import split_any
from rankstream.contracts.codec import decode_batch, decode_message, encode_batch, event_at
from rankstream.contracts.dead_letters import Header, headers_of
from rankstream.contracts.events import Event
from rankstream.contracts.ids import partition_of
from rankstream.contracts.items import decode_item
from rankstream.contracts.record import Record
from rankstream.errors import InvalidBatch, InvalidInput
from rankstream.pb import events_pb2 as pb
from rankstream.ports import EventLog

UNMATCHED: Final = "unmatched"
LETTER_HEADER: Final = "dead-letter"
_POLL_RECORDS: Final = 1_000
_POLL_S: Final = 0.5


@dataclass(frozen=True)
class Replay:
    """A letter was sent again, at this time of the log."""

    time_ms: int
    events: int
    refused: int
    to: str


@dataclass(frozen=True)
class Kept:
    """A letter of the log, and its replays, oldest first."""

    letter: pb.DeadLetter
    replays: list[Replay] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """All letters, oldest first, each once; and offsets of records that are no letters."""

    letters: list[Kept]
    unreadable: list[int]


async def read_letters(kafka_url: str) -> Found:
    """What `events.dead` holds now. Raises: DependencyUnavailable."""
    return collect(await _read(kafka_url, topics.EVENTS_DEAD))


def collect(records: Iterable[Record]) -> Found:
    """Letters with the notes on them. A letter that was appended twice is one."""
    kept: dict[str, Kept] = {}
    unreadable = []
    for record in records:
        try:
            letter = pb.DeadLetter.FromString(record.value or b"")
        except DecodeError:
            unreadable.append(record.offset)
            continue
        if not letter.HasField("replay"):
            kept.setdefault(letter.dead_letter_id, Kept(letter))
        elif letter.dead_letter_id in kept:
            note = letter.replay
            replay = Replay(record.timestamp_ms, note.events, note.refused, note.to)
            kept[letter.dead_letter_id].replays.append(replay)
    return Found(list(kept.values()), unreadable)


@dataclass(frozen=True)
class Sending:
    """What a replay of one letter would do: records to append, or JSON events for ingest.

    `refused` says of each event that does not fit the contract yet, why; those are not sent.
    """

    records: list[tuple[str, bytes, bytes, int | None]] = field(default_factory=list)
    """(topic, key, value, partition or None: by key)"""
    bodies: list[bytes] = field(default_factory=list)
    events: int = 0
    refused: list[str] = field(default_factory=list)
    to: str = ""


def mended(letter: pb.DeadLetter, *, partitions: int, newest_ms: dict[str, int]) -> Sending:
    """What of a letter fits the contract by now, and where it goes.

    Args:
        partitions: of `events`, as it is now: a user's events go to the user's partition.
        newest_ms: item_id -> `updated_ms` of what `items` holds last: nothing older goes after it.
    """
    if letter.code == UNMATCHED:
        return Sending(to="nowhere: the event is in the log; only its impression never came")
    if letter.topic in (topics.EVENTS.name, topics.EVENTS_JSON.name):
        if letter.partition < 0 or letter.topic == topics.EVENTS_JSON.name:
            return _json_events(letter)
        return _events(letter, partitions)
    if letter.topic == topics.ITEMS.name:
        return _item(letter, newest_ms)
    return Sending(refused=[f"{letter.topic} is written by our own services; rebuild it instead"])


def _json_events(letter: pb.DeadLetter) -> Sending:
    try:
        parts = split_any(letter.original)
    except InvalidInput as error:
        return Sending(refused=[str(error)])
    bodies, refused = [], []
    for row in letter.rows or range(len(parts)):
        try:
            decode_message(parts[row])
        except InvalidInput as error:
            refused.append(str(error))
        else:
            bodies.append(parts[row])
    return Sending(bodies=bodies, events=len(bodies), refused=refused, to="ingest")


def _events(letter: pb.DeadLetter, partitions: int) -> Sending:
    try:
        columns = decode_batch(letter.original)
    except InvalidBatch as error:
        return Sending(refused=[str(error)])
    events: defaultdict[int, list[Event]] = defaultdict(list)
    refused: list[str] = []
    for row in letter.rows or range(len(columns)):
        try:
            event = event_at(columns, row)
        except InvalidInput as error:
            refused.append(str(error))
        else:
            events[partition_of(event.user_id, partitions)].append(event)
    name = topics.EVENTS.name
    return Sending(
        records=[(name, b"", encode_batch(part), p) for p, part in sorted(events.items())],
        events=sum(map(len, events.values())),
        refused=refused,
        to=", ".join(f"{name}[{partition}]" for partition in sorted(events)),
    )


def _item(letter: pb.DeadLetter, newest_ms: dict[str, int]) -> Sending:
    try:
        item = decode_item(letter.original)
    except InvalidInput as error:
        return Sending(refused=[str(error)])
    if item.updated_ms < newest_ms.get(item.item_id, 0):
        return Sending(to="nowhere: the item has been updated since")
    name = topics.ITEMS.name
    record = (name, item.item_id.encode(), letter.original, None)
    return Sending(records=[record], events=1, to=name)


async def append(sending: Sending, letter: pb.DeadLetter, log: EventLog) -> None:
    """Append the records of a replay, with the letter's headers and its id."""
    own: Header = (LETTER_HEADER, letter.dead_letter_id.encode())
    headers = [*(found for found in headers_of(letter) if found[0] != LETTER_HEADER), own]
    for topic, key, value, partition in sending.records:
        await log.send(topic, value, key=key, partition=partition, headers=headers)


async def note(letter: pb.DeadLetter, log: EventLog, *, events: int, refused: int, to: str) -> None:
    """Have the log say that the letter was sent again."""
    said = pb.DeadLetter(
        dead_letter_id=letter.dead_letter_id,
        replay=pb.DeadLetter.Replay(events=events, refused=refused, to=to),
    )
    await log.send(topics.EVENTS_DEAD.name, said.SerializeToString())


async def newest_items(kafka_url: str, letters: Sequence[pb.DeadLetter]) -> dict[str, int]:
    """item_id -> `updated_ms` of the newest update in the log, if any letter is an item's."""
    if not any(letter.topic == topics.ITEMS.name for letter in letters):
        return {}
    newest: dict[str, int] = {}
    for record in await _read(kafka_url, topics.ITEMS):
        try:
            item = pb.Item.FromString(record.value or b"")
        except DecodeError:
            continue
        newest[item.item_id] = max(newest.get(item.item_id, 0), item.updated_ms)
    return newest


async def _read(kafka_url: str, topic: topics.Topic) -> list[Record]:
    reader = LogReader(kafka_url, [topic.name], client_id="rankstream-cli")
    records: list[Record] = []
    try:
        while not reader.caught_up:
            records += await reader.poll(_POLL_RECORDS, _POLL_S)
    finally:
        await reader.close()
    return records
