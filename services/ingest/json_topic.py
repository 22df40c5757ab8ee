"""Events that others produce to `events.json`, an event or an array per record.

In:  topic `events.json`, group `ingest-json`.   Out: `events`, `items`, `events.dead`.
At least once: a record's offset is committed after all that came of it is acked; a crash before
that repeats its events, whose event_ids the stream has seen. Once too much is refused it stops
reading, with nothing of the batch in hand appended or committed, until the service is restarted.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaException, Message

from rankstream import metrics, topics
from rankstream.adapters.dead_share import DeadShare
from rankstream.adapters.kafka_client import LIBRARY_LOG_LEVEL, PASSING
from rankstream.adapters.log_reader import headers_of
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.bodies import split_any
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.dead_letters import JSON_TYPE, kept_bytes, kept_headers
from rankstream.contracts.record import Record
from rankstream.errors import InvalidInput, QueueFull, TooManyDeadLetters, Unavailable
from rankstream.pb import events_pb2 as pb
from services.ingest.intake import Accepted, classify
from services.ingest.publisher import Publisher

GROUP = "ingest-json"
# What is read and parsed at once: bounded memory, whatever the rate.
RECORDS_MAX = 200
BYTES_MAX = 4 * 1024 * 1024
_FETCHED_KB_MAX = 16_384
_POLL_S = 0.5
_RETRY_QUEUE_S = 0.05
_RETRY_LOG_S = 1.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What one record holds: events to append, the codes of the others, and their letter."""

    accepted: list[Accepted]
    refused: list[str]
    letter: pb.DeadLetter | None


class JsonTopic:
    """Follows `events.json` in a group."""

    def __init__(
        self,
        kafka_url: str,
        *,
        publisher: Publisher,
        limits: TimeLimits,
        dead_share: DeadShare,
        metrics_of: Metrics,
    ) -> None:
        self._publisher = publisher
        self._limits = limits
        self._dead_share = dead_share
        self._stopped = metrics_of.gauge(metrics.CONSUMER_STOPPED).labels(topics.EVENTS_JSON.name)
        self._rejected = metrics_of.counter(metrics.INGEST_REJECTED)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events-json")
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka_url,
                "client.id": "ingest",
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": _FETCHED_KB_MAX,
                "log_level": LIBRARY_LOG_LEVEL,
            }
        )

    async def follow(self) -> None:
        """Move records until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            self._consumer.subscribe([topics.EVENTS_JSON.name])
            while True:
                messages = await loop.run_in_executor(self._thread, self._poll)
                if messages:
                    await self.move([_record(message) for message in messages])
                    await loop.run_in_executor(self._thread, self._commit, messages)
        except TooManyDeadLetters as error:
            self._stopped.set(1)
            structlog.get_logger().error("consumer_stopped", reason=str(error))
        finally:
            await asyncio.shield(loop.run_in_executor(self._thread, self._consumer.close))
            self._thread.shutdown()
        # HTTP goes on: its clients read their refusals themselves.
        await asyncio.Event().wait()

    async def move(self, records: list[Record]) -> None:
        """Append what came of some records, however long the log takes to answer.

        Raises: TooManyDeadLetters: nothing of them was appended.
        """
        taken = [self._read(record) for record in records]
        refused = sum(len(one.refused) for one in taken)
        self._dead_share.add(refused + sum(len(one.accepted) for one in taken), refused)
        await asyncio.gather(*(self._append(one) for one in taken))

    async def _append(self, taken: Taken) -> None:
        while True:
            try:
                letters = [] if taken.letter is None else [taken.letter]
                outcome = await self._publisher.take(taken.accepted, letters, source="events.json")
            except QueueFull:
                await asyncio.sleep(_RETRY_QUEUE_S)
            except Unavailable:
                await asyncio.sleep(_RETRY_LOG_S)
            else:
                if outcome.error is None:
                    break
                await asyncio.sleep(_RETRY_LOG_S)
        for code in taken.refused:
            self._rejected.labels("events.json", code).inc()

    def _read(self, record: Record) -> Taken:
        try:
            parts = split_any(record.value or b"")
        except InvalidInput as error:
            return Taken([], [error.code], _dead_letter(record, [], error))
        accepted, rejected = classify(parts, clock_ms=record.timestamp_ms, limits=self._limits)
        if not rejected:
            return Taken(accepted, [], None)
        rows = [refused.index for refused in rejected]
        letter = _dead_letter(record, rows, rejected[0].error)
        return Taken(accepted, [refused.error.code for refused in rejected], letter)

    def _poll(self) -> list[Message]:
        messages: list[Message] = []
        size = 0
        while len(messages) < RECORDS_MAX and size < BYTES_MAX:
            message = self._consumer.poll(0 if messages else _POLL_S)
            if message is None:
                break
            error = message.error()
            if error is None:
                messages.append(message)
                size += len(message.value() or b"")
            elif error.code() not in PASSING:
                structlog.get_logger().warning("events_json_poll", reason=error.str())
        return messages

    def _commit(self, messages: list[Message]) -> None:
        """Commit the last record of each partition; if it fails, the records are moved again."""
        last = {message.partition(): message for message in messages}
        for message in last.values():
            try:
                self._consumer.commit(message=message, asynchronous=False)
            except KafkaException as error:
                structlog.get_logger().warning("events_json_commit", reason=str(error.args[0]))


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Record(
        topic,
        partition,
        offset,
        message.timestamp()[1],
        message.key() or b"",
        message.value(),
        headers_of(message),
    )


def _dead_letter(record: Record, rows: list[int], error: InvalidInput) -> pb.DeadLetter:
    """The record's own bytes and place; `rows` are the events refused, none for all of it."""
    kept, cut = kept_bytes(record.value or b"")
    return pb.DeadLetter(
        # Its place: a record that is moved again after a crash is the same letter.
        dead_letter_id=f"{record.topic}/{record.partition}/{record.offset}",
        code=error.code,
        reason=str(error) + cut,
        original=kept,
        original_key=record.key,
        source="ingest",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        rows=rows,
        refused_ms=record.timestamp_ms,
        content_type=JSON_TYPE,
        events=max(1, len(rows)),
        headers=kept_headers(record.headers),
    )
