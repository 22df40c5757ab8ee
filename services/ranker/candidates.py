"""Where the ranker's candidates come from: the retrieval service, or an index in this process.

`shards.py` has the service in several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from rankstream.candidates.answer import Candidates
from rankstream.candidates.retrieval import Retrieval
from rankstream.contracts.filter import ItemFilter, Place, encode_filter, encode_place
from rankstream.contracts.sources import NAMES
from rankstream.errors import NotReady, RankstreamError
from rankstream.pb import retrieval_pb2 as pb
from rankstream.pb.events_pb2 import ServedSlate
from services.ranker.breaker import Breaker, CircuitOpen

METHOD: Final = "/rankstream.v1.Retrieval/Retrieve"
REFUSED: Final = "retrieval_refused"
_REASONS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: "retrieval_timeout",
    grpc.StatusCode.UNAVAILABLE: "retrieval_unavailable",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "retrieval_overloaded",
    # By its gRPC, before it took the call; one that this process cancels raises no AioRpcError.
    grpc.StatusCode.CANCELLED: "retrieval_overloaded",
}

Reply = TypeVar("Reply", bound=Message)


class RetrievalFailed(Exception):
    """No candidates; `reason` is what the reply's `degraded` will say."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Retrieved:
    """Candidates, the index that they are of, and who named each: bit i is source_name[i].

    degraded: what was missing.
    """

    item_ids: list[str]
    index_id: str
    source_name: Sequence[str]
    named_by: Sequence[int]
    degraded: Sequence[str] = ()

    @classmethod
    def of(cls, candidates: Candidates, index_id: str, missing: Sequence[str] = ()) -> Retrieved:
        """What was found in this process, or put together in it; `missing`: of it, besides."""
        named_by: list[int] = candidates.named_by.tolist()
        degraded = (*candidates.degraded, *missing)
        return cls(candidates.item_ids, index_id, NAMES, named_by, degraded)

    def credit(self, slate: ServedSlate) -> None:
        """Write into a slate where its items come from."""
        slate.index_id = self.index_id
        if self.named_by:
            shown = set(slate.item_id)
            named_by = {
                item_id: bits
                for item_id, bits in zip(self.item_ids, self.named_by, strict=True)
                if item_id in shown
            }
            slate.source_name[:] = self.source_name
            slate.named_by[:] = [named_by[item_id] for item_id in slate.item_id]


class Link(Generic[Reply]):
    """One channel to one process of retrieval, each call with a deadline."""

    def __init__(
        self, address: str, method: str, reply: type[Reply], *, timeout_s: float, breaker: Breaker
    ) -> None:
        self._channel = grpc.aio.insecure_channel(
            address,
            options=[
                # gRPC's own back-off grows to two minutes: a restarted service would stay unused.
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1_000),
            ],
        )
        self._call: Any = self._channel.unary_unary(
            method,
            request_serializer=pb.RetrieveRequest.SerializeToString,
            response_deserializer=reply.FromString,
        )
        self._timeout_s = timeout_s
        self._breaker = breaker

    async def ask(self, request: pb.RetrieveRequest) -> Reply:
        """The reply.

        Raises: RetrievalFailed: late, unreachable, refused, or late so often that it is not asked.
        """
        try:
            with self._breaker.call():
                reply: Reply = await self._call(request, timeout=self._timeout_s)
        except CircuitOpen as error:
            raise RetrievalFailed("retrieval_circuit_open", str(error)) from None
        except grpc.aio.AioRpcError as error:
            # A client of the ranker reads this: what gRPC says of a lost connection has addresses.
            if reason := _REASONS.get(error.code()):
                raise RetrievalFailed(reason, error.code().name) from None
            raise RetrievalFailed(REFUSED, f"{error.code().name}: {error.details()}") from None
        return reply

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


class RetrievalClient:
    """The retrieval service, all items of which are in one process."""

    def __init__(self, address: str, *, timeout_s: float, breaker: Breaker) -> None:
        self._link = Link(address, METHOD, pb.RetrieveReply, timeout_s=timeout_s, breaker=breaker)

    async def retrieve(self, request: pb.RetrieveRequest) -> Retrieved:
        """Candidates, best first. Raises: RetrievalFailed: as Link.ask."""
        reply = await self._link.ask(request)
        named_by = list(reply.named_by)
        return Retrieved(
            list(reply.item_id), reply.index_id, reply.source_name, named_by, reply.degraded
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._link.close()


class InProcess:
    """The same answers from an index in this process."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    async def retrieve(self, request: pb.RetrieveRequest) -> Retrieved:
        """As RetrievalClient's. Raises: RetrievalFailed: refused, or there is no index yet."""
        try:
            return Retrieved.of(*self._retrieval.candidates(request))
        except NotReady as error:
            raise RetrievalFailed("retrieval_unavailable", str(error)) from None
        except RankstreamError as error:
            raise RetrievalFailed(REFUSED, str(error)) from None

    async def close(self) -> None:
        """Nothing is open."""


def request_of(
    request_id: str,
    recent: npt.NDArray[np.uint64],
    k: int,
    exclude_item_ids: list[str],
    wanted: ItemFilter | None,
    place: Place | None,
) -> pb.RetrieveRequest:
    """What is asked of retrieval: k candidates for a history (id64, newest first), without itself.

    Some of them are near the place, if retrieval is so configured.
    """
    hashes = recent.tolist()
    return pb.RetrieveRequest(
        request_id=request_id,
        recent_items=hashes,
        k=k,
        exclude_item_ids=exclude_item_ids,
        exclude_items=hashes,
        filter=None if wanted is None else encode_filter(wanted),
        place=None if place is None else encode_place(place),
    )
