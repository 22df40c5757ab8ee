"""Candidates from several shards of retrieval, each of which has a part of the items."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.answer import Counters
from rankstream.candidates.shards import decode, index_id_of, joined
from rankstream.contracts.sources import Sources, decode_sources
from rankstream.errors import InvalidSettings
from rankstream.pb import retrieval_pb2 as pb
from services.ranker.breaker import Breaker
from services.ranker.candidates import REFUSED, Link, RetrievalFailed, Retrieved

METHOD: Final = "/rankstream.v1.Retrieval/RetrieveShard"
PARTIAL: Final = "retrieval_partial"  # candidates of some shards only

SOURCES_DIFFER: Final = "retrieval_sources_differ"  # RETRIEVAL_SOURCES of shards are not the same


class Shards:
    """All shards are asked at once; one answer is made of what those have found that answer."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        timeout_s: float,
        breaker_of: Callable[[str], Breaker],
        metrics_of: Metrics,
    ) -> None:
        """`addresses`: of shard 0, 1, ...; `breaker_of`: one for each, by its name."""
        self._links = [
            Link(
                address,
                METHOD,
                pb.ShardReply,
                timeout_s=timeout_s,
                breaker=breaker_of(f"retrieval-{number}"),
            )
            for number, address in enumerate(addresses)
        ]
        self._failures = metrics_of.counter(metrics.RANKER_SHARD_FAILURES)
        self._counters = Counters(metrics_of)

    async def retrieve(self, request: pb.RetrieveRequest) -> Retrieved:
        """As RetrievalClient's; `degraded` has PARTIAL if a shard did not answer.

        Raises: RetrievalFailed: no shard answered; it says why the first one did not.
        """
        answers = await asyncio.gather(
            *(self._ask(number, request) for number in range(len(self._links)))
        )
        replies, failed = self._agreeing(answers)
        if not replies:
            raise failed[0]
        parts = [decode(reply) for reply in replies]
        candidates = joined(parts, _sources(replies[0].sources), request.k)
        self._counters.count(candidates)
        return Retrieved.of(candidates, index_id_of(parts), (PARTIAL,) if failed else ())

    def _agreeing(
        self, answers: Sequence[pb.ShardReply | RetrievalFailed]
    ) -> tuple[list[pb.ShardReply], list[RetrievalFailed]]:
        """Replies of one configuration of sources, the first one's, and what failed.

        One list of candidates has one set of quotas and floors: a shard that was given others would
        have its items judged by what it was not asked for.
        """
        replies: list[pb.ShardReply] = []
        failed: list[RetrievalFailed] = []
        for number, answer in enumerate(answers):
            if isinstance(answer, RetrievalFailed):
                failed.append(answer)
            elif replies and answer.sources != replies[0].sources:
                detail = f"shard {number} has other sources than shard {replies[0].shard}"
                self._failures.labels(str(number), SOURCES_DIFFER).inc()
                failed.append(RetrievalFailed(SOURCES_DIFFER, detail))
            else:
                replies.append(answer)
        return replies, failed

    async def _ask(
        self, number: int, request: pb.RetrieveRequest
    ) -> pb.ShardReply | RetrievalFailed:
        try:
            reply = await self._links[number].ask(request)
            self._check(number, reply)
        except RetrievalFailed as failed:
            self._failures.labels(str(number), failed.reason).inc()
            return failed
        return reply

    def _check(self, number: int, reply: pb.ShardReply) -> None:
        if (reply.shard, reply.shards) != (number, len(self._links)):
            raise RetrievalFailed(
                REFUSED,
                f"shard {number} of {len(self._links)} says that it is {reply.shard} of"
                f" {reply.shards}",
            )
        try:
            _sources(reply.sources)
        except InvalidSettings as error:
            raise RetrievalFailed(REFUSED, f"shard {number}: {error}") from None

    async def close(self) -> None:
        """Close the channels."""
        for link in self._links:
            await link.close()


@lru_cache(maxsize=8)
def _sources(text: bytes) -> Sources:
    return decode_sources(text, "the sources of a shard")
