"""Questions about past answers: why they were what they were, and whether they come out again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from google.protobuf.message import DecodeError

from rankstream.errors import InvalidRequest, UnknownAnswer
from rankstream.pb.events_pb2 import ServedSlate
from rankstream.pb.ranker_pb2 import ExplainReply, ReproduceReply
from services.ranker.answers import Answers
from services.ranker.explanation import explain
from services.ranker.models import Models
from services.ranker.policies import Policies
from services.ranker.reproduction import reproduce


class Past:
    """Finds an answer and its model: kept ones, or what the caller brings from topic served."""

    def __init__(self, *, answers: Answers, models: Models, policies: Policies, ttl_s: int) -> None:
        self._answers = answers
        self._models = models
        self._policies = policies
        self._ttl_s = ttl_s

    async def explain(self, request_id: str) -> ExplainReply:
        """Raises: InvalidRequest, UnknownAnswer, SpecMismatch, DependencyUnavailable."""
        slate = await self._find(request_id, "explained")
        return await explain(slate, await self._models.past(slate.model_id, slate.model_sha256))

    async def reproduce(self, request_id: str, record: bytes) -> ReproduceReply:
        """Make the answer again, and compare.

        Args:
            record: the answer's record of topic served; empty: the kept one.

        Raises: as `explain`.
        """
        slate = _parsed(request_id, record) if record else None
        if slate is None:
            slate = await self._find(request_id, "reproduced")
        model = await self._models.past(slate.model_id, slate.model_sha256)
        between, other = slate.interleaving, None
        if slate.HasField("interleaving"):
            other = await self._models.past(between.model_id, between.model_sha256)
        stand_in, cut = None, slate.prerank
        if slate.HasField("prerank"):
            stand_in = await self._models.past(cut.model_id, cut.model_sha256)
        # Off the loop: the batch is as large as the one that was served.
        found = await asyncio.to_thread(
            reproduce, slate, model, other, self._policies.of_hash, stand_in
        )
        return ReproduceReply(
            request_id=slate.request_id,
            model_id=slate.model_id,
            model_sha256=slate.model_sha256,
            data_version=slate.data_version,
            policy=slate.policy,
            policy_hash=slate.policy_hash,
            items=len(slate.item_id),
            candidates=slate.candidates,
            differences=found,
        )

    async def _find(self, request_id: str, done: str) -> ServedSlate:
        if not request_id:
            raise InvalidRequest(
                f"invalid_request: request_id is empty. Not {done}. Give the id of an answer."
            )
        slate = await self._answers.find(request_id)
        if slate is None:
            raise UnknownAnswer(
                f"unknown_answer: no answer {request_id[:128]!r} in the last {self._ttl_s} s."
                f" Not {done}. Previews are not kept; older answers are in topic served."
            )
        return slate


def _parsed(request_id: str, record: bytes) -> ServedSlate:
    try:
        slate = ServedSlate.FromString(record)
    except DecodeError as error:
        raise InvalidRequest(
            f"invalid_request: record of {len(record)} bytes is not a slate: {error}."
            " Not reproduced. Bring a record of topic served."
        ) from None
    names = [slate.model_id]
    names += filter(None, (slate.prerank.model_id, slate.interleaving.model_id))
    plain = all(name and Path(name).name == name for name in names)
    if slate.request_id != request_id or not plain:
        raise InvalidRequest(
            f"invalid_request: the record is of answer {slate.request_id[:128]!r} by model"
            f" {names[-1][:128]!r}, asked for {request_id[:128]!r}. Not reproduced."
            " Bring the record of that answer."
        )
    return slate
