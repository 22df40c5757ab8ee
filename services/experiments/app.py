"""Define, start, stop and read experiments; scorecards off the stream.

In:  topics `experiments` (compacted), `exposures`, `labels`, each from its start: a scorecard is a
     function of the log, so a restart changes no number.
Out: topic `experiments`, of which this service is the only writer.
Decides nothing: `board` and `rankstream.experiments` decide, this file moves bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import ValidationError

from rankstream import metrics, topics
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.errors import Conflict, InvalidExperiment, NotReady
from services.experiments.board import Board
from services.experiments.settings import ExperimentsSettings

LOG = "log"
_POLL_S = 0.2
_EXPIRE_EVERY_S = 10.0


class Experiments:
    """The board with its log: writes definitions, follows what comes back."""

    def __init__(
        self,
        settings: ExperimentsSettings,
        *,
        producer: EventProducer,
        reader: Callable[[str], LogReader],
        health: Health,
        metrics_of: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self.board = Board()
        self._settings = settings
        self._producer = producer
        self._reader = reader
        self._health = health
        self._now_ms = now_ms
        self._skipped = metrics_of.gauge(metrics.EXPERIMENTS_SKIPPED_RECORDS)
        self._lag = metrics_of.gauge(metrics.CONSUMER_LAG_RECORDS)
        self._value = metrics_of.gauge(metrics.EXPERIMENT_METRIC)
        self._srm = metrics_of.gauge(metrics.EXPERIMENT_SRM_P_VALUE)
        self._units = metrics_of.gauge(metrics.EXPERIMENT_UNITS)
        self._write = asyncio.Lock()

    async def follow(self) -> None:
        """Fold the log until cancelled. Definitions first, so that no exposure finds its experiment
        missing; then all three.
        """
        definitions = self._reader(topics.EXPERIMENTS.name)
        exposures = self._reader(topics.EXPOSURES.name)
        labels = self._reader(topics.LABELS.name)
        try:
            while not definitions.caught_up:
                self._fold(await definitions.poll(self._settings.records_per_poll, _POLL_S))
            expire_at = time.monotonic() + _EXPIRE_EVERY_S
            while True:
                for reader in (definitions, exposures, labels):
                    self._fold(await reader.poll(self._settings.records_per_poll, _POLL_S / 4))
                if exposures.caught_up and labels.caught_up:
                    self._health.ready(LOG)
                if time.monotonic() >= expire_at:
                    expire_at += _EXPIRE_EVERY_S
                    self.board.expire(self._settings.exposure_wait_ms)
                    self._measure((definitions, exposures, labels))
        finally:
            for reader in (definitions, exposures, labels):
                await reader.close()

    def _fold(self, records: list[Record]) -> None:
        fold = {
            topics.EXPERIMENTS.name: self.board.define,
            topics.EXPOSURES.name: self.board.expose,
            topics.LABELS.name: self.board.label,
        }
        for record in records:
            if record.value is not None:
                fold[record.topic](record.value)

    def _measure(self, readers: tuple[LogReader, ...]) -> None:
        for reason, count in self.board.skipped.items():
            self._skipped.labels(reason).set(count)
        for reader in readers:
            for (topic, partition), lag in reader.lag().items():
                self._lag.labels(topic, str(partition)).set(lag)
        for experiment in self.board.experiments():
            if experiment.start_ms is None:
                continue
            scorecard = self.board.scorecard(experiment.id, alpha=0.05)
            self._srm.labels(experiment.id).set(scorecard.srm.p_value)
            for variant in scorecard.variants:
                self._units.labels(experiment.id, variant.variant).set(variant.units)
                for metric in variant.metrics:
                    if metric.value is not None:
                        self._value.labels(experiment.id, variant.variant, metric.metric).set(
                            metric.value
                        )

    async def put(self, experiment: Experiment) -> Experiment:
        """Check a definition against those in force, write it to the log, take it."""
        self._check_ready()
        async with self._write:
            self.board.check(experiment)
            await self._producer.send(
                topics.EXPERIMENTS.name,
                encode_experiment(experiment),
                key=experiment.id.encode(),
            )
            self.board.put(experiment)
        return experiment

    async def change(self, experiment_id: str, *, status: str) -> Experiment:
        """Start a draft or stop a running experiment, now."""
        self._check_ready()
        known = self.board.experiment(experiment_id)
        allowed = {"running": "draft", "stopped": "running"}
        if known.status != allowed[status]:
            raise Conflict(
                f"conflict: experiment {experiment_id} is {known.status}, so it cannot become"
                f" {status}. Nothing was changed. Only a {allowed[status]} experiment can."
            )
        stamp = "start_ms" if status == "running" else "stop_ms"
        changed = known.model_dump() | {
            "status": status,
            stamp: self._now_ms(),
            "version": known.version + 1,
        }
        return await self.put(Experiment.model_validate(changed))

    def _check_ready(self) -> None:
        if self._health.reasons():
            raise NotReady(
                "not_ready: the experiments log has not been read to its end yet."
                " Nothing was changed. Try again in a few seconds."
            )


def add_routes(app: FastAPI, experiments: Experiments) -> None:
    """The HTTP surface; bodies are validated as JSON by the contract itself."""
    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Experiment.model_json_schema()}},
        }
    }

    @app.post("/v1/experiments", status_code=201, openapi_extra=body)
    async def define(request: Request) -> Experiment:
        """Define a draft, or amend a definition with the next version."""
        return await experiments.put(_parse(await request.body()))

    @app.get("/v1/experiments")
    async def every() -> list[Experiment]:
        return experiments.board.experiments()

    @app.post("/v1/experiments/{experiment_id}:start")
    async def start(experiment_id: str) -> Experiment:
        return await experiments.change(experiment_id, status="running")

    @app.post("/v1/experiments/{experiment_id}:stop")
    async def stop(experiment_id: str) -> Experiment:
        return await experiments.change(experiment_id, status="stopped")

    @app.get("/v1/experiments/{experiment_id}")
    async def one(experiment_id: str) -> Experiment:
        return experiments.board.experiment(experiment_id)

    @app.get("/v1/experiments/{experiment_id}/scorecard")
    async def scorecard(
        experiment_id: str, alpha: Annotated[float, Query(gt=0, lt=0.5)] = 0.05
    ) -> Scorecard:
        return experiments.board.scorecard(experiment_id, alpha=alpha)


def _parse(body: bytes) -> Experiment:
    try:
        return Experiment.model_validate_json(body)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "experiment"
        raise InvalidExperiment(
            f"invalid_experiment: {where}: {first['msg']}, got {str(first['input'])[:80]!r}."
            " Nothing was changed. Mend the definition and send it again."
        ) from None
