"""What happened to an answer: its records on the way to Kafka, and itself kept for questions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

import structlog

from rankstream import metrics, topics
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.redis_link import RedisLink
from rankstream.adapters.redis_rows import command
from rankstream.errors import DependencyUnavailable, QueueFull, RankstreamError
from rankstream.pb.events_pb2 import Exposure, ServedSlate
from services.ranker.breaker import Breaker, CircuitOpen

_KEY: Final = b"rankstream:answer:"
KEPT: Final = "answers"  # the label of kept answers beside the names of topics


class Log(Protocol):
    """What is used of an EventProducer."""

    def send(self, topic: str, value: bytes, *, key: bytes) -> Awaitable[tuple[int, int]]: ...


class Store(Protocol):
    """Where answers are kept; both methods raise DependencyUnavailable."""

    async def put(self, request_id: str, slate: bytes) -> None: ...

    async def get(self, request_id: str) -> bytes | None: ...


class RedisAnswers:
    """Answers in Redis, each for `ttl_s`."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int, breaker: Breaker) -> None:
        self._link = RedisLink(url, timeout_s=timeout_s)
        self._breaker = breaker
        self._ttl = str(ttl_s).encode()

    async def put(self, request_id: str, slate: bytes) -> None:
        """Keep an answer."""
        key = _KEY + request_id.encode()
        (reply,) = await self._link.request(command(b"SET", key, slate, b"EX", self._ttl), 1)
        self._check(reply)

    async def get(self, request_id: str) -> bytes | None:
        """A kept answer, None if there is none any more."""
        try:
            with self._breaker.call():  # a caller waits for this one
                (reply,) = await self._link.request(command(b"GET", _KEY + request_id.encode()), 1)
        except CircuitOpen as error:
            raise DependencyUnavailable(f"dependency_unavailable: {error}. Try again.") from None
        self._check(reply)
        assert reply is None or isinstance(reply, bytes)
        return reply

    def _check(self, reply: object) -> None:
        if isinstance(reply, Exception):
            raise DependencyUnavailable(f"dependency_unavailable: Redis refused: {reply}.")

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()


class Answers:
    """Sends the records of answers off the answer path: bounded, acked, counted."""

    def __init__(self, log: Log, store: Store, *, queue_max: int, metrics_of: Metrics) -> None:
        self._log = log
        self._store = store
        self._queue_max = queue_max
        self._tasks: set[asyncio.Task[None]] = set()
        self._unkept: dict[str, bytes] = {}  # request id -> slate on its way to the store
        self._unfinished: dict[str, asyncio.Event] = {}  # request id -> set when it is complete
        self._fates = metrics_of.counter(metrics.RANKER_LOG_RECORDS)
        self._queue = metrics_of.gauge(metrics.RANKER_LOG_QUEUE)

    def check_room(self) -> None:
        """Raises: QueueFull if the records of one more answer would not fit."""
        if len(self._tasks) + 3 > self._queue_max:
            raise QueueFull(
                f"queue_full: {len(self._tasks)} records of earlier answers wait for their ack"
                f" (limit {self._queue_max}). Not answered: an answer without its record would"
                " bias every experiment. Try again."
            )

    def append(
        self,
        slate: ServedSlate,
        exposure: Exposure | None,
        finish: Callable[[ServedSlate], None] | None = None,
    ) -> None:
        """Send the records of an answer; returns at once.

        With `finish`, which runs in a thread, the slate is sent when that has completed it.
        """
        body = slate.SerializeToString()
        self._unkept[slate.request_id] = body
        if finish is None:
            self._start(self._send(topics.SERVED.name, slate.user_id, body))
            self._start(self._keep(slate.request_id, body))
        else:
            self._unfinished[slate.request_id] = asyncio.Event()
            self._start(self._finished(ServedSlate.FromString(body), finish))
        if exposure is not None:
            record = exposure.SerializeToString()
            self._start(self._send(topics.EXPOSURES.name, exposure.unit, record))
        self._queue.set(len(self._tasks))

    async def _finished(self, slate: ServedSlate, finish: Callable[[ServedSlate], None]) -> None:
        try:
            await asyncio.to_thread(finish, slate)
            body = slate.SerializeToString()
            self._unkept[slate.request_id] = body
        finally:
            self._unfinished.pop(slate.request_id).set()
        await asyncio.gather(
            self._send(topics.SERVED.name, slate.user_id, body), self._keep(slate.request_id, body)
        )

    async def find(self, request_id: str) -> ServedSlate | None:
        """A past answer, complete; None if it is not kept (any more).

        Raises: DependencyUnavailable.
        """
        unfinished = self._unfinished.get(request_id)
        if unfinished is not None:
            await unfinished.wait()
        body = self._unkept.get(request_id)
        if body is None:
            body = await self._store.get(request_id)
        return None if body is None else ServedSlate.FromString(body)

    async def drain(self, timeout_s: float) -> None:
        """Wait until every record is acked or lost; those still open then are counted as lost."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            self._fates.labels("", "lost").inc(len(late))
            structlog.get_logger().error("answers_lost_at_stop", records=len(late))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._queue.set(len(self._tasks))

    async def _send(self, topic: str, key: str, value: bytes) -> None:
        try:
            await self._log.send(topic, value, key=key.encode())
        except RankstreamError as error:
            self._lost(topic, error)
        else:
            self._fates.labels(topic, "acked").inc()

    async def _keep(self, request_id: str, body: bytes) -> None:
        try:
            await self._store.put(request_id, body)
        except RankstreamError as error:
            self._lost(KEPT, error)
        else:
            self._fates.labels(KEPT, "acked").inc()
        finally:
            self._unkept.pop(request_id, None)

    def _lost(self, what: str, error: RankstreamError) -> None:
        self._fates.labels(what, "lost").inc()
        structlog.get_logger().error("record_lost", of=what, reason=str(error))
