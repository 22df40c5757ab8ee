"""Callers of the ranker and of retrieval over gRPC, from this process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from rankstream.pb.ranker_pb2 import RankReply
from rankstream.pb.retrieval_pb2 import RetrieveReply

TIMEOUT_S: Final = 10.0
METHODS: Final[Mapping[str, tuple[str, type[Message]]]] = {
    "Rank": ("/rankstream.v1.Ranker/Rank", RankReply),
    "Recommend": ("/rankstream.v1.Ranker/Recommend", RankReply),
    "Retrieve": ("/rankstream.v1.Retrieval/Retrieve", RetrieveReply),
}
"""What may be called: path and reply."""


@dataclass
class Calls:
    """What came of them: seconds of each answer, failures by status, and how long all took.

    at_s: when each of the answers was due, from the start. hinted: failures that say when to come
    again. sent_late_s: how long after it was due each request was sent.
    """

    latency_s: list[float] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    sent_late_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    degraded: Counter[str] = field(default_factory=Counter)
    hinted: int = 0
    wall_s: float = 0.0


async def closed_loop(
    address: str, method: str, requests: Iterator[Message], *, calls: int, callers: int
) -> Calls:
    """So many callers, each asking again as soon as it is answered."""
    done = Calls()
    async with grpc.aio.insecure_channel(address) as channel:
        began = time.perf_counter()
        ask = _asking(channel, method, done, began, TIMEOUT_S, lambda reply: None)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await ask(next(requests), time.perf_counter())

        await asyncio.gather(*(caller() for _ in range(callers)))
        done.wall_s = time.perf_counter() - began
    return done


async def open_loop(
    address: str,
    method: str,
    requests: Iterator[Message],
    *,
    per_s: float,
    seconds: float,
    deadline_s: float = TIMEOUT_S,
    check: Callable[[Any], None] = lambda reply: None,
) -> Calls:
    """Callers that come at a steady pace and do not wait for one another.

    Latency counts from when a request is due, and so does its deadline: what waits in this process
    is late as well. `check` sees every answer.
    Source: Tene, "How NOT to Measure Latency" (coordinated omission).
    """
    done = Calls()
    async with grpc.aio.insecure_channel(address) as channel:
        began = time.perf_counter()
        ask = _asking(channel, method, done, began, deadline_s, check)
        async with asyncio.TaskGroup() as calls:
            for number in range(int(per_s * seconds)):
                due_s = began + number / per_s
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                calls.create_task(ask(next(requests), due_s))
        done.wall_s = time.perf_counter() - began
    return done


def _asking(
    channel: grpc.aio.Channel,
    method: str,
    done: Calls,
    began_s: float,
    deadline_s: float,
    check: Callable[[Any], None],
) -> Callable[[Message, float], Coroutine[Any, Any, None]]:
    path, reply_type = METHODS[method]
    rpc: Any = channel.unary_unary(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reply_type.FromString,
    )

    async def ask(request: Message, due_s: float) -> None:
        late_s = time.perf_counter() - due_s
        done.sent_late_s.append(late_s)
        try:
            reply = await rpc(request, timeout=max(0.0, deadline_s - late_s))
        except grpc.aio.AioRpcError as error:
            done.failed[error.code().name] += 1
            done.hinted += any(key == "retry-after" for key, _ in error.trailing_metadata() or ())
            return
        done.latency_s.append(time.perf_counter() - due_s)
        done.at_s.append(due_s - began_s)
        done.degraded.update(reply.degraded)
        check(reply)

    return ask
