"""Define, start, stop and read experiments; scorecards off the stream.

In:  topics `experiments` (compacted), `exposures`, `labels`, each from its start: a scorecard is a
     function of the log, so a restart changes no number.
Out: topic `experiments`, of which this service is the only writer.
Decides nothing: `board` and `rankstream.experiments` decide, this file moves bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from prometheus_client import Gauge
from pydantic import ValidationError

from rankstream import metrics, topics
from rankstream.adapters.apps import Routes
from rankstream.adapters.follow import POLL_S, RECORDS_PER_POLL, follow
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import EventProducer, LogReader, Record
from rankstream.adapters.keys import Scope
from rankstream.adapters.metrics import Metrics
from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.errors import Conflict, InvalidExperiment, NotReady
from rankstream.experiments.metrics import metric
from services.experiments.board import Board
from services.experiments.settings import ExperimentsSettings

LOG = "log"
TOPICS = (topics.EXPERIMENTS.name, topics.EXPOSURES.name, topics.LABELS.name)
# Bounds what waits for an exposure while a long log is read again.
_EXPIRE_EVERY_ROWS = 100_000

Offsets = Mapping[tuple[str, int], int]
OpenReader = Callable[[Sequence[str], Offsets], LogReader]


class Experiments:
    """The board with its log: writes definitions, follows what comes back."""

    def __init__(
        self,
        settings: ExperimentsSettings,
        *,
        producer: EventProducer,
        reader: OpenReader,
        health: Health,
        metrics_of: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._board = Board()
        self._settings = settings
        self._producer = producer
        self._reader = reader
        self._health = health
        self._now_ms = now_ms
        self._metrics = metrics_of
        self._skipped = metrics_of.gauge(metrics.EXPERIMENTS_SKIPPED_RECORDS)
        self._lag = metrics_of.gauge(metrics.CONSUMER_LAG_RECORDS)
        self._value = metrics_of.gauge(metrics.EXPERIMENT_METRIC)
        self._srm = metrics_of.gauge(metrics.EXPERIMENT_SRM_P_VALUE)
        self._units = metrics_of.gauge(metrics.EXPERIMENT_UNITS)
        self._write = asyncio.Lock()
        self._fold_of = {
            topics.EXPERIMENTS.name: self._board.define,
            topics.EXPOSURES.name: self._board.expose,
            topics.LABELS.name: self._board.label,
        }
        self._expire_at_rows = _EXPIRE_EVERY_ROWS

    async def follow(self) -> None:
        """Fold the log until cancelled.

        Definitions first, so that no exposure finds its experiment missing; then exposures, so
        that only labels of units that were never exposed wait; then all three with one reader.

        Raises: DependencyUnavailable if Kafka does not answer at the start.
        """
        offsets: dict[tuple[str, int], int] = {}
        for topic in (topics.EXPERIMENTS.name, topics.EXPOSURES.name):
            offsets |= await self._read_to_end(topic)

        await follow(
            lambda positions: _Measured(self._reader(TOPICS, offsets | positions), self._lag),
            self._fold,
            metrics_of=self._metrics,
            on_caught_up=lambda: self._health.ready(LOG),
        )

    async def _read_to_end(self, topic: str) -> dict[tuple[str, int], int]:
        reader = _Measured(self._reader([topic], {}), self._lag)
        try:
            while not reader.caught_up:
                for record in await reader.poll(RECORDS_PER_POLL, POLL_S):
                    await self._fold(record)
            return reader.positions()
        finally:
            await reader.close()

    async def _fold(self, record: Record) -> None:
        if record.value is None:
            return
        # An exposure may come back before the ack of the definition that caused it.
        async with self._write:
            self._fold_of[record.topic](record.value)
        if self._board.label_rows >= self._expire_at_rows:
            self._expire_at_rows = self._board.label_rows + _EXPIRE_EVERY_ROWS
            self._board.expire(self._settings.exposure_wait_ms)
        if record.topic == topics.LABELS.name:
            # A record holds many rows, and a poll many records: requests are answered in between.
            await asyncio.sleep(0)

    async def measure(self) -> None:
        """Set the metrics of all scorecards, every `measure_every_s` until cancelled."""
        while True:
            await asyncio.sleep(self._settings.measure_every_s)
            for reason, count in self._board.skipped.items():
                self._skipped.labels(reason).set(count)
            if not self._health.reasons():
                self._measure()

    def _measure(self) -> None:
        for experiment in self._board.experiments():
            if experiment.start_ms is None:
                continue
            scorecard = self.scorecard(experiment.id, alpha=0.05)
            self._srm.labels(experiment.id).set(scorecard.srm.p_value)
            for variant in scorecard.variants:
                self._units.labels(experiment.id, variant.variant).set(variant.units)
                for found in variant.metrics:
                    if found.value is not None:
                        labels = (experiment.id, variant.variant, found.metric)
                        self._value.labels(*labels).set(found.value)

    def experiments(self) -> list[Experiment]:
        """All definitions, by id. Raises: NotReady."""
        self._check_ready()
        return self._board.experiments()

    def experiment(self, experiment_id: str) -> Experiment:
        """The definition in force. Raises: UnknownExperiment, NotReady."""
        self._check_ready()
        return self._board.experiment(experiment_id)

    def scorecard(self, experiment_id: str, *, alpha: float) -> Scorecard:
        """The scorecard as of the log.

        Raises: UnknownExperiment, NotReady; Conflict if it was never started.
        """
        self._check_ready()
        # Here too, so that what is said to wait depends on the log and not on when it was read.
        self._board.expire(self._settings.exposure_wait_ms)
        return self._board.scorecard(experiment_id, alpha=alpha)

    async def put(self, experiment: Experiment) -> Experiment:
        """Take a new definition, or an amendment with the next version.

        Raises: InvalidExperiment, Conflict, NotReady; DependencyUnavailable if Kafka gave no ack,
            and then the definition is in force only if it shows up in the log.
        """
        self._check_ready()
        async with self._write:
            for name in (experiment.primary_metric, *experiment.guardrails):
                metric(name)
            self._board.check(experiment)
            if experiment.version > 1:
                self._check_stop(self._board.experiment(experiment.id), experiment)
            await self._append(experiment)
        return experiment

    async def change(
        self, experiment_id: str, *, status: Literal["running", "stopped"]
    ) -> Experiment:
        """Start a draft or stop a running experiment, now.

        Raises: as `put`, and UnknownExperiment.
        """
        self._check_ready()
        async with self._write:
            known = self._board.experiment(experiment_id)
            allowed = {"running": "draft", "stopped": "running"}
            if known.status != allowed[status]:
                raise Conflict(
                    f"conflict: experiment {experiment_id} is {known.status}, so it cannot become"
                    f" {status}. Nothing was changed. Only a {allowed[status]} experiment can."
                )
            fields = known.model_dump() | {"status": status, "version": known.version + 1}
            if status == "running":
                fields["start_ms"] = self._now_ms()
            else:
                # One that was to start later, or has just started, ends as it begins.
                fields["stop_ms"] = max(self._now_ms(), (known.start_ms or 0) + 1)
            changed = _valid(lambda: Experiment.model_validate(fields))
            self._board.check(changed)
            await self._append(changed)
        return changed

    async def _append(self, experiment: Experiment) -> None:
        key = experiment.id.encode()
        await self._producer.send(topics.EXPERIMENTS.name, encode_experiment(experiment), key=key)
        self._board.put(experiment)

    def _check_stop(self, known: Experiment, amended: Experiment) -> None:
        """Refuse to move the end of a started experiment to or from the past: what was folded
        meanwhile would be counted otherwise after a restart.
        """
        ends = [known.stop_ms, amended.stop_ms]
        now_ms = self._now_ms()
        is_past = any(end is not None and end < now_ms for end in ends)
        if known.status != "draft" and ends[0] != ends[1] and is_past:
            raise Conflict(
                f"conflict: experiment {known.id}: stop_ms cannot change from {ends[0]} to"
                f" {ends[1]}, the clock is at {now_ms}. Nothing was changed. Name a time to come,"
                f" or stop it now with POST /v1/experiments/{known.id}:stop."
            )

    def _check_ready(self) -> None:
        if self._health.reasons():
            raise NotReady(
                "not_ready: the experiments log has not been read to its end yet."
                " Nothing was changed. Try again in a few seconds."
            )


class _Measured:
    """A reader that sets its lag after every poll."""

    def __init__(self, reader: LogReader, lag: Gauge) -> None:
        self._reader = reader
        self._lag = lag

    @property
    def caught_up(self) -> bool:
        return self._reader.caught_up

    def positions(self) -> dict[tuple[str, int], int]:
        return self._reader.positions()

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        records = await self._reader.poll(max_records, timeout_s)
        for (topic, partition), lag in self._reader.lag().items():
            self._lag.labels(topic, str(partition)).set(lag)
        return records

    async def close(self) -> None:
        await self._reader.close()


def scope_of(method: str, _path: str) -> Scope:
    """What a key needs for a call."""
    return "read" if method in ("GET", "HEAD") else "write"


def routes(experiments: Experiments) -> Routes:
    """Everybody may be let read; what changes what users get is for operators.

    Bodies are validated as JSON by the contract itself.
    """
    read, change = APIRouter(), APIRouter()
    body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Experiment.model_json_schema()}},
        }
    }

    @change.post("/v1/experiments", status_code=201, openapi_extra=body)
    async def define(request: Request) -> Experiment:
        """Define a draft, or amend a definition with the next version."""
        received = await request.body()
        return await experiments.put(_valid(lambda: Experiment.model_validate_json(received)))

    @read.get("/v1/experiments")
    async def every() -> list[Experiment]:
        return experiments.experiments()

    @change.post("/v1/experiments/{experiment_id}:start")
    async def start(experiment_id: str) -> Experiment:
        return await experiments.change(experiment_id, status="running")

    @change.post("/v1/experiments/{experiment_id}:stop")
    async def stop(experiment_id: str) -> Experiment:
        return await experiments.change(experiment_id, status="stopped")

    @read.get("/v1/experiments/{experiment_id}")
    async def one(experiment_id: str) -> Experiment:
        return experiments.experiment(experiment_id)

    @read.get("/v1/experiments/{experiment_id}/scorecard")
    async def scorecard(
        experiment_id: str, alpha: Annotated[float, Query(gt=0, lt=0.5)] = 0.05
    ) -> Scorecard:
        return experiments.scorecard(experiment_id, alpha=alpha)

    return Routes(read, change)


def _valid(parse: Callable[[], Experiment]) -> Experiment:
    """What `parse` returns. Raises: InvalidExperiment, naming the first field that is wrong."""
    try:
        return parse()
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "experiment"
        raise InvalidExperiment(
            f"invalid_experiment: {where}: {first['msg']}, got {str(first['input'])[:80]!r}."
            " Nothing was changed. Mend the definition and send it again."
        ) from None
