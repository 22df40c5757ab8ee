"""Events that others produce to `events.json`, an event or an array per record.

In:  topic `events.json`, group `ingest-json`.   Out: `events`, `items`, `events.dead`.
At least once: a record's offset is committed after all that came of it is acked; a crash before
that repeats its events, whose event_ids the stream has seen.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from confluent_kafka import Consumer, KafkaException, Message

from rankstream import metrics, topics
from rankstream.adapters.kafka_client import LIBRARY_LOG_LEVEL, PASSING
from rankstream.adapters.log_reader import Record
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.columns import TimeLimits
from rankstream.contracts.ids import new_id
from rankstream.errors import InvalidInput, QueueFull, Unavailable
from rankstream.pb import events_pb2 as pb
from services.ingest.intake import JSON_TYPE, Accepted, classify, split_any
from services.ingest.publisher import Publisher

GROUP = "ingest-json"
RECORDS_MAX = 200
_POLL_S = 0.5
_RETRY_QUEUE_S = 0.05
_RETRY_LOG_S = 1.0


class JsonTopic:
    """Follows `events.json` in a group."""

    def __init__(
        self, kafka_url: str, *, publisher: Publisher, limits: TimeLimits, metrics_of: Metrics
    ) -> None:
        self._publisher = publisher
        self._limits = limits
        self._rejected = metrics_of.counter(metrics.INGEST_REJECTED)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events-json")
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka_url,
                "client.id": "ingest",
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
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
                    await asyncio.gather(*(self.move(_record(message)) for message in messages))
                    await loop.run_in_executor(self._thread, self._commit, messages)
        finally:
            await asyncio.shield(loop.run_in_executor(self._thread, self._consumer.close))
            self._thread.shutdown()

    async def move(self, record: Record) -> None:
        """Append what came of one record, however long the log takes to answer."""
        accepted, letter, refused = self._read(record)
        while True:
            try:
                letters = [] if letter is None else [letter]
                outcome = await self._publisher.take(accepted, letters, source="events.json")
            except QueueFull:
                await asyncio.sleep(_RETRY_QUEUE_S)
            except Unavailable:
                await asyncio.sleep(_RETRY_LOG_S)
            else:
                if outcome.error is None:
                    break
                await asyncio.sleep(_RETRY_LOG_S)
        for code in refused:
            self._rejected.labels("events.json", code).inc()

    def _read(self, record: Record) -> tuple[list[Accepted], pb.DeadLetter | None, list[str]]:
        """Events to append, a dead letter if some were refused, and the codes of those."""
        try:
            parts = split_any(record.value or b"")
        except InvalidInput as error:
            return [], _dead_letter(record, [], error), [error.code]
        accepted, rejected = classify(parts, clock_ms=record.timestamp_ms, limits=self._limits)
        if not rejected:
            return accepted, None, []
        rows = [refused.index for refused in rejected]
        letter = _dead_letter(record, rows, rejected[0].error)
        return accepted, letter, [refused.error.code for refused in rejected]

    def _poll(self) -> list[Message]:
        first = self._consumer.poll(_POLL_S)
        if first is None:
            return []
        messages = [first, *self._consumer.consume(RECORDS_MAX - 1, 0)]
        for message in messages:
            error = message.error()
            if error is not None and error.code() not in PASSING:
                structlog.get_logger().warning("events_json_poll", reason=error.str())
        return [message for message in messages if message.error() is None]

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
    timestamp_ms = message.timestamp()[1]
    return Record(topic, partition, offset, timestamp_ms, message.key() or b"", message.value())


def _dead_letter(record: Record, rows: list[int], error: InvalidInput) -> pb.DeadLetter:
    """The record's own bytes and place; `rows` are the events refused, none for all of it."""
    return pb.DeadLetter(
        dead_letter_id=new_id(),
        code=error.code,
        reason=str(error),
        original=record.value or b"",
        original_key=record.key,
        source="ingest",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        rows=rows,
        refused_ms=record.timestamp_ms,
        content_type=JSON_TYPE,
        events=max(1, len(rows)),
    )
