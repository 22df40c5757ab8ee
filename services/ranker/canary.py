"""A new model on some of the traffic, watched, and taken off by itself if it fails too often.

Requests that no experiment decides are split by a hash of their id: `percent` to the canary, as
many to the control, which is the champion, counted; the champion answers the rest. A failure is an
error, a score that is not finite, or scoring slower than the limit. An answer that the canary fails
is given by the champion. The canary is taken off when the evidence that it fails more often than
its control reaches 1 / alpha; without failures nothing ever happens by itself. Another version
behind the alias begins anew. Each process of the ranker decides for itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.adapters.onnx_session import REFUSALS
from rankstream.contracts.experiment import BUCKETS
from rankstream.errors import DependencyUnavailable
from rankstream.experiments.assign import bucket
from rankstream.experiments.failures import FailureEvidence
from rankstream.ports import Model, Scores
from services.ranker.enrichment import Degraded, Enriched
from services.ranker.models import Models, scored
from services.ranker.settings import RankerSettings

CANARY: Final = "canary"
CONTROL: Final = "control"
_SALT: Final = "canary"


@dataclass
class Watch:
    """What one version behind the alias has done so far, and its control meanwhile."""

    model_id: str
    version: str
    answers: dict[str, int] = field(default_factory=lambda: {CANARY: 0, CONTROL: 0})
    evidence: FailureEvidence = field(default_factory=FailureEvidence)
    rolled_back: str = ""


class Canary:
    """Which model scores an answer, and how it went."""

    def __init__(
        self,
        settings: RankerSettings,
        models: Models,
        *,
        metrics_of: Metrics,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._alias = settings.canary_alias
        self._share = round(settings.canary_percent * BUCKETS / 100)
        self._limit_s = settings.canary_latency_ms / 1000
        self._enough = -log(settings.canary_alpha)
        self._models = models
        self._clock_s = clock_s
        self._watch: Watch | None = None
        self._answers = metrics_of.counter(metrics.RANKER_CANARY_ANSWERS)
        self._evidence = metrics_of.gauge(metrics.RANKER_CANARY_EVIDENCE)
        self._off = metrics_of.gauge(metrics.RANKER_CANARY_OFF)

    def scored(
        self, model: Model, request_id: str, enriched: Enriched, degraded: Degraded
    ) -> tuple[Model, Scores, npt.NDArray[np.float32]]:
        """The model that answers in place of `model`, the champion, and what it gives.

        Raises: DependencyUnavailable if the champion, asked first or last, gives no numbers.
        """
        watch = self._current()
        place = bucket(_SALT, request_id) if watch is not None else BUCKETS
        if watch is None or place >= 2 * self._share:
            return model, *scored(model, enriched)
        if place >= self._share:
            return model, *self._watched(watch, CONTROL, model, enriched)
        canary = self._models.of_alias(self._alias)
        assert canary is not None
        try:
            return canary, *self._watched(watch, CANARY, canary, enriched)
        except (DependencyUnavailable, *REFUSALS):
            degraded.add("canary_failed")
            return model, *scored(model, enriched)

    def status(self) -> dict[str, object]:
        """For people: what runs, what was counted, what was decided."""
        watch = self._current(rolled_back=True)
        if watch is None:
            return {"alias": self._alias, "running": False}
        running = not watch.rolled_back
        percent = 100 * self._share / BUCKETS
        return {"alias": self._alias, "percent": percent, "running": running, **asdict(watch)}

    def _current(self, *, rolled_back: bool = False) -> Watch | None:
        """The watch of what is behind the alias now, None if nothing runs as a canary."""
        if not self._alias or not self._share:
            return None
        model = self._models.of_alias(self._alias)
        if model is None or model.model_id == self._models.champion().model_id:
            return None
        version = self._models.version(model.model_id)
        if self._watch is None or self._watch.version != version:
            self._watch = Watch(model.model_id, version)
            self._off.labels(model.model_id).set(0)
        return self._watch if rolled_back or not self._watch.rolled_back else None

    def _watched(
        self, watch: Watch, arm: str, model: Model, enriched: Enriched
    ) -> tuple[Scores, npt.NDArray[np.float32]]:
        start = self._clock_s()
        outcome = "error"
        try:
            found = scored(model, enriched)
            outcome = "slow" if self._clock_s() - start > self._limit_s else "ok"
            return found
        except DependencyUnavailable:
            outcome = "not_finite"
            raise
        finally:
            self._note(watch, arm, model.model_id, outcome)

    def _note(self, watch: Watch, arm: str, model_id: str, outcome: str) -> None:
        watch.answers[arm] += 1
        self._answers.labels(arm, model_id, outcome).inc()
        if outcome == "ok":
            return
        watch.evidence = evidence = watch.evidence.after(canary=arm == CANARY)
        self._evidence.labels(watch.model_id).set(evidence.log_e)
        if evidence.log_e >= self._enough and not watch.rolled_back:
            watch.rolled_back = (
                f"{evidence.canary} failures of {watch.answers[CANARY]} answers, the control"
                f" {evidence.control} of {watch.answers[CONTROL]}; the last one: {outcome}"
            )
            self._off.labels(watch.model_id).set(1)
            structlog.get_logger().error(
                "canary_rolled_back", model_id=watch.model_id, reason=watch.rolled_back
            )
