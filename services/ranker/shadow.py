"""A second model scores what was answered, behind the answer; what it would have shown is logged.

One thread of low priority; what does not fit its queue is dropped and counted. So an answer waits
for it at no time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from rankstream import metrics, topics
from rankstream.adapters.behind import thread_behind
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.onnx_session import REFUSALS
from rankstream.contracts.experiment import BUCKETS
from rankstream.errors import DependencyUnavailable, RankstreamError
from rankstream.experiments.assign import bucket
from rankstream.pb.events_pb2 import ServedSlate, ShadowSlate
from rankstream.ports import Model
from rankstream.ranking.preferences import places_of
from services.ranker.answers import Log
from services.ranker.enrichment import Enriched
from services.ranker.models import Models, scored
from services.ranker.settings import RankerSettings

_SALT: Final = "shadow"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answered:
    """An answer to be scored again: its record, its candidates, and what they were given."""

    slate: ServedSlate
    enriched: Enriched
    preferred: Floats
    pctr: Floats


class Shadow:
    """Bounded; `offer` on the answer's path, all else behind it."""

    def __init__(
        self, settings: RankerSettings, models: Models, log: Log, *, metrics_of: Metrics
    ) -> None:
        self._alias = settings.shadow_alias
        self._share = round(settings.shadow_percent * BUCKETS / 100)
        self._queue_max = settings.shadow_queue_max
        self._models = models
        self._log = log
        self._queue: deque[Answered] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._some = asyncio.Event()
        self._thread = thread_behind("shadow")
        self._fates = metrics_of.counter(metrics.RANKER_SHADOW_ANSWERS)
        self._seconds = metrics_of.histogram(metrics.RANKER_SHADOW_SECONDS)

    def offer(
        self, slate: ServedSlate, enriched: Enriched, preferred: Floats, pctr: Floats
    ) -> None:
        """Have an answer scored, unless there is no model for it or no room; returns at once."""
        if not self._alias or not slate.item_id or self._models.of_alias(self._alias) is None:
            return
        if bucket(_SALT, slate.request_id) >= self._share:
            return
        if len(self._queue) + len(self._sending) >= self._queue_max:
            self._fates.labels("dropped").inc()
            return
        self._queue.append(Answered(slate, enriched, preferred, pctr))
        self._some.set()

    async def run(self) -> None:
        """Score what is offered, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            while self._queue:
                answered = self._queue.popleft()
                model = self._models.of_alias(self._alias)
                if model is None or model.model_id == answered.slate.model_id:
                    continue
                try:
                    body = await loop.run_in_executor(self._thread, self._body, answered, model)
                except (DependencyUnavailable, *REFUSALS) as error:
                    self._fates.labels("failed").inc()
                    structlog.get_logger().warning("shadow_failed", reason=str(error))
                    continue
                sending = asyncio.create_task(self._send(answered.slate.user_id, body))
                self._sending.add(sending)
                sending.add_done_callback(self._sending.discard)

    def close(self) -> None:
        """Stop the thread; what waits is not scored."""
        self._thread.shutdown(cancel_futures=True)

    def _body(self, answered: Answered, model: Model) -> bytes:
        start = time.perf_counter()
        scores, preferred = scored(model, answered.enriched)
        seconds = time.perf_counter() - start
        self._seconds.observe(seconds)
        shadow = shadow_slate(answered, model.model_id, preferred, scores.pctr)
        shadow.score_ms = seconds * 1_000
        return shadow.SerializeToString()

    async def _send(self, user_id: str, body: bytes) -> None:
        try:
            await self._log.send(topics.SHADOW.name, body, key=user_id.encode())
        except RankstreamError:
            self._fates.labels("lost").inc()
        else:
            self._fates.labels("logged").inc()


def shadow_slate(answered: Answered, model_id: str, preferred: Floats, pctr: Floats) -> ShadowSlate:
    """What both models make of the items of both slates: the served ones, then those that the
    shadow alone would have shown, by its own order and without a policy.

    Args:
        preferred, pctr: of the shadow's model, shape (m,).
    """
    slate = answered.slate
    everyone = np.arange(len(preferred))
    served = places_of(answered.preferred, everyone)
    shadow = places_of(preferred, everyone)
    shown = list(slate.candidate)
    alone = np.flatnonzero(shadow < len(shown))
    alone = alone[np.argsort(shadow[alone])]
    items = np.array([*shown, *(i for i in alone.tolist() if i not in set(shown))], np.intp)
    return ShadowSlate(
        request_id=slate.request_id,
        user_id=slate.user_id,
        served_time_ms=slate.served_time_ms,
        model_id=slate.model_id,
        shadow_model_id=model_id,
        slots=len(shown),
        candidates=len(preferred),
        item_id=[answered.enriched.item_ids[i] for i in items.tolist()],
        pctr=answered.pctr[items].tolist(),
        shadow_pctr=pctr[items].tolist(),
        place=served[items].tolist(),
        shadow_place=shadow[items].tolist(),
    )
