"""Recommend, rank, explain: what both transports call.

Steps of an answer: limits, variant, user row, candidates, item rows, features, model, policy,
record. Each step that can fail for reasons that are not the caller's has a fallback, which the
reply names in `degraded` and a counter counts.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np
from structlog.contextvars import bound_contextvars

from rankstream import metrics
from rankstream.adapters.health import Health
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.ids import new_id
from rankstream.contracts.sources import POPULAR
from rankstream.errors import (
    Conflict,
    DependencyUnavailable,
    InvalidRequest,
    NotReady,
    QueueFull,
    RankstreamError,
)
from rankstream.features.rows import Rows
from rankstream.pb import ranker_pb2, retrieval_pb2
from rankstream.pb.events_pb2 import ServedSlate
from services.ranker.answers import Answers
from services.ranker.canary import Canary
from services.ranker.candidates import RetrievalFailed, Retrieved, request_of
from services.ranker.decisions import Decision, Decisions
from services.ranker.enrichment import TIMEOUT, Degraded, Enriched, Enrichment
from services.ranker.interleaved import interleave
from services.ranker.models import Models, scored
from services.ranker.past import Past
from services.ranker.policies import Chosen, Policies, choose
from services.ranker.preranking import preranker
from services.ranker.requests import RankRequest, RecommendRequest
from services.ranker.settings import RankerSettings
from services.ranker.shadow import Shadow
from services.ranker.slates import assigned, finished, record, reply_of
from services.ranker.variants import Variants

T = TypeVar("T")


class Candidates(Protocol):
    """What is used of a RetrievalClient."""

    async def retrieve(self, request: retrieval_pb2.RetrieveRequest) -> Retrieved: ...


class Ranker:
    """One core behind gRPC and HTTP."""

    def __init__(
        self,
        settings: RankerSettings,
        *,
        models: Models,
        policies: Policies,
        variants: Variants,
        enrichment: Enrichment,
        retrieval: Candidates,
        answers: Answers,
        canary: Canary,
        shadow: Shadow,
        health: Health,
        metrics_of: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._models = models
        self._decisions = Decisions(models, policies, variants)
        self._enrichment = enrichment
        self._retrieval = retrieval
        self._answers = answers
        self._canary = canary
        self._shadow = shadow
        self._health = health
        self._past = Past(
            answers=answers, models=models, policies=policies, ttl_s=settings.answer_ttl_s
        )
        self._now_ms = now_ms
        self._running: set[str] = set()  # request ids given by callers, being answered
        self._in_flight = 0
        self._requests = metrics_of.counter(metrics.RANKER_REQUESTS)
        self._degraded = metrics_of.counter(metrics.RANKER_DEGRADED)
        self._candidates = metrics_of.histogram(metrics.RANKER_CANDIDATES)
        self._in_flight_gauge = metrics_of.gauge(metrics.RANKER_IN_FLIGHT)
        stages = metrics_of.histogram(metrics.RANKER_STAGE_SECONDS)
        self._stages = {
            name: stages.labels(name)
            for name in ("user", "retrieve", "enrich", "score", "policy", "total")
        }

    async def recommend(self, request: RecommendRequest, *, transport: str) -> ranker_pb2.RankReply:
        """A slate of n retrieved items.

        Raises: InvalidRequest, UnknownExperiment, Conflict (request_id of another user's answer,
            or of one that is being made), NotReady, QueueFull, DependencyUnavailable (retrieval
            is down, and there is a filter or no popular items are known).
        """
        return await self._counted("recommend", transport, self._recommend(request))

    async def rank(self, request: RankRequest, *, transport: str) -> ranker_pb2.RankReply:
        """The given items, best first; unknown ones are ranked on defaults and listed.

        Raises: as `recommend`.
        """
        return await self._counted("rank", transport, self._rank(request))

    async def explain(self, request_id: str, *, transport: str) -> ranker_pb2.ExplainReply:
        """Per-feature contributions of a past answer.

        Raises: InvalidRequest, UnknownAnswer (never made, expired, or its model is not loaded),
            DependencyUnavailable.
        """
        return await self._counted("explain", transport, self._past.explain(request_id))

    def canary(self) -> dict[str, object]:
        """What runs as a canary, and how it goes."""
        return self._canary.status()

    async def reproduce(
        self, request_id: str, record: bytes, *, transport: str
    ) -> ranker_pb2.ReproduceReply:
        """A past answer made again from its record, and compared; see `Past.reproduce`."""
        work = self._past.reproduce(request_id, record)
        return await self._counted("reproduce", transport, work)

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        return self._in_flight

    def refused(self, method: str, transport: str, error: RankstreamError) -> None:
        """Count a request that a transport refused before it could be read."""
        self._requests.labels(method, transport, error.code).inc()

    async def _counted(self, method: str, transport: str, work: Coroutine[Any, Any, T]) -> T:
        status = "cancelled"
        start = time.perf_counter()
        self._in_flight += 1
        self._in_flight_gauge.set(self._in_flight)
        try:
            answer = await work
            status = "ok"
            return answer
        except RankstreamError as error:
            status = error.code
            raise
        finally:
            self._in_flight -= 1
            self._in_flight_gauge.set(self._in_flight)
            self._requests.labels(method, transport, status).inc()
            if status == "ok":
                self._stages["total"].observe(time.perf_counter() - start)

    def _admit(self, preview: bool) -> None:
        if reasons := self._health.reasons():
            raise NotReady(
                f"not_ready: {'; '.join(f'{name}: {why}' for name, why in reasons.items())}."
                " Not answered. Try again soon."
            )
        if self._in_flight > self._settings.inflight_max:
            raise QueueFull(
                f"queue_full: {self._in_flight - 1} requests are being answered (limit"
                f" {self._settings.inflight_max}). Not answered. Try again."
            )
        if not preview:
            self._answers.check_room()

    async def _recommend(self, request: RecommendRequest) -> ranker_pb2.RankReply:
        n = _within("n", request.n, 0, self._settings.n_max) or self._settings.n_default
        self._admit(request.preview)
        async with self._once(request) as (request_id, earlier):
            if earlier is not None:
                return reply_of(earlier, ())
            now = self._now_ms()
            degraded = Degraded()
            decision = self._decisions.of(request.user_id, request.variant_overrides, now, degraded)
            with self._timed("user"):
                user = await self._enrichment.user(request.user_id, degraded)
            with self._timed("retrieve"):
                found = await self._retrieve(request, request_id, user, degraded)
            with self._timed("enrich"):
                keep = self._settings.prerank_keep
                by = preranker(decision.model, decision.other, keep, n)
                enriched = await self._enrichment.enrich(
                    user,
                    found.item_ids,
                    request.context,
                    now,
                    degraded,
                    withdrawn=False,
                    ratings=self._models.ratings,
                    by=by,
                )
            if not enriched.item_ids:
                degraded.add("no_candidates")
            slate, chosen = self._slate(
                request, request_id, n, now, decision, user, enriched, degraded
            )
            found.credit(slate)
            return self._answer(request.preview, slate, chosen, decision, degraded, ())

    async def _rank(self, request: RankRequest) -> ranker_pb2.RankReply:
        item_ids = request.item_ids
        _within("the number of item_ids", len(item_ids), 1, self._settings.items_max)
        if len(set(item_ids)) < len(item_ids):
            raise InvalidRequest(
                "invalid_request: item_ids names an item twice. Not ranked. Name each once."
            )
        n = _within("n", request.n, 0, self._settings.items_max) or len(item_ids)
        self._admit(request.preview)
        async with self._once(request) as (request_id, earlier):
            if earlier is not None:
                return reply_of(earlier, ())
            now = self._now_ms()
            degraded = Degraded()
            decision = self._decisions.of(request.user_id, request.variant_overrides, now, degraded)
            with self._timed("user"):
                user = await self._enrichment.user_and_items(request.user_id, item_ids, degraded)
            with self._timed("enrich"):
                enriched = await self._enrichment.enrich(
                    user,
                    item_ids,
                    request.context,
                    now,
                    degraded,
                    withdrawn=True,
                    ratings=self._models.ratings,
                )
            unknown: list[str] = []
            if TIMEOUT not in degraded.reasons:
                unknown = [item_ids[i] for i in np.flatnonzero(~enriched.known()).tolist()]
            slate, chosen = self._slate(
                request, request_id, n, now, decision, user, enriched, degraded
            )
            return self._answer(request.preview, slate, chosen, decision, degraded, unknown)

    @asynccontextmanager
    async def _once(
        self, request: RecommendRequest | RankRequest
    ) -> AsyncIterator[tuple[str, ServedSlate | None]]:
        """The request's id, and the answer that it was given before, if it was.

        A repeated request_id of the same user gets the kept answer, whatever else it asks, and
        logs nothing: a retry must not show up as a second slate.
        """
        given = request.request_id
        if given in self._running:
            raise Conflict(
                f"conflict: request_id {given!r} is being answered now. Not answered twice."
                " Wait for that answer, or give another request_id."
            )
        request_id = given or new_id()
        with bound_contextvars(request_id=request_id):
            if not given or request.preview:
                yield request_id, None
                return
            self._running.add(request_id)
            try:
                yield request_id, await self._earlier(request_id, request.user_id)
            finally:
                self._running.discard(request_id)

    async def _earlier(self, request_id: str, user_id: str) -> ServedSlate | None:
        try:
            slate = await self._answers.find(request_id)
        except DependencyUnavailable:
            # Better a second slate under this id than no answer; readers take the first.
            self._degraded.labels("answers_unavailable").inc()
            return None
        if slate is not None and slate.user_id != user_id:
            raise Conflict(
                f"conflict: request_id {request_id!r} belongs to an answer for another user."
                " Not answered. Give another request_id, or none."
            )
        return slate

    async def _retrieve(
        self, request: RecommendRequest, request_id: str, user: Rows, degraded: Degraded
    ) -> Retrieved:
        """At most `candidates` item ids, none of the user's last actions."""
        actions = user["recent"][0]
        recent = actions["item"][actions["time_ms"] > 0]
        k, excluded = self._settings.candidates, request.exclude_item_ids
        asked = request_of(request_id, recent, k, excluded, request.filter, request.context.place)
        try:
            found = await self._retrieval.retrieve(asked)
        except RetrievalFailed as error:
            degraded.add(error.reason)
            if request.filter is not None and not request.filter.is_empty:
                raise DependencyUnavailable(
                    f"dependency_unavailable: retrieval: {error}, and popular items may not pass"
                    " the filter. Not answered. Try again, or ask without the filter."
                ) from None
            popular = self._models.popular
            if popular is None:
                raise DependencyUnavailable(
                    f"dependency_unavailable: retrieval: {error}, and no popular items are known."
                    " Not answered. Try again."
                ) from None
            item_ids = popular.without(recent, excluded, k)
            return Retrieved(item_ids, popular.index_id, (POPULAR,), [1] * len(item_ids))
        for reason in found.degraded:
            degraded.add(reason)
        return found

    def _slate(
        self,
        request: RecommendRequest | RankRequest,
        request_id: str,
        n: int,
        now: int,
        decision: Decision,
        user: Rows,
        enriched: Enriched,
        degraded: Degraded,
    ) -> tuple[ServedSlate, Chosen]:
        """Score, order and choose; everything that explains the outcome goes into the record."""
        with self._timed("score"):
            model, other = decision.model, decision.other
            if decision.assignment is None and not request.preview:
                model, scores, preferred = self._canary.scored(
                    model, request_id, enriched, degraded
                )
            else:
                scores, preferred = scored(model, enriched)
            against = None if other is None else (other, *scored(other, enriched))
        between = None
        with self._timed("policy"):
            if against is None:
                chosen = choose(decision.policy, enriched, scores, preferred, n, now, request_id)
            else:
                both = ((model, scores, preferred), against)
                chosen, between = interleave(decision.policy, enriched, both, n, now, request_id)
        self._candidates.observe(len(preferred))
        model_id, logit, pctr = model.model_id, scores.logit, scores.pctr
        slate = record(request, request_id, now, model_id, chosen, n, logit, pctr, user, enriched)
        self._models.sign(slate, between)
        if not request.preview:
            self._shadow.offer(slate, enriched, preferred, pctr)
        return slate, chosen

    def _answer(
        self,
        preview: bool,
        slate: ServedSlate,
        chosen: Chosen,
        decision: Decision,
        degraded: Degraded,
        unknown: Sequence[str],
    ) -> ranker_pb2.RankReply:
        """The reply; its records are on their way before it is given."""
        slate.degraded.extend(degraded.reasons)
        for reason in degraded.reasons:
            self._degraded.labels(reason).inc()
        exposure = None
        if decision.assignment is not None:
            exposure = assigned(slate, decision.assignment)
        if not preview:
            exposure = exposure if decision.exposes else None
            finish = finished(slate, chosen, candidates=self._settings.log_candidates)
            self._answers.append(slate, exposure, finish)
        return reply_of(slate, unknown)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._stages[stage].observe(time.perf_counter() - start)


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidRequest(
            f"invalid_request: {name} is {value} (limit {low}..{high}). Not answered."
            " Ask for a number inside the limits."
        )
    return value
