"""Watch what is served and what came of it.

In:  topics `served` and `labels`, from one join window ago; offsets of consumer groups.
Out: GET /v1/report; Prometheus metrics.
Decides nothing: `fold`, `report` and `rankstream.monitoring` decide, this file moves bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from fastapi import FastAPI

from rankstream import topics
from rankstream.adapters.artifacts import read_manifest
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import LogReader, Record
from rankstream.errors import DependencyUnavailable, InvalidArtifact, InvalidBatch, NotReady
from rankstream.monitoring.checks import Check
from rankstream.monitoring.histogram import Histogram, decode_histogram
from services.monitor.fold import Fold
from services.monitor.measures import Measures
from services.monitor.records import Slate, decode_labels, decode_slate
from services.monitor.report import Figures, Lag, Report, checks, report
from services.monitor.settings import MonitorSettings

LOG = "log"
WATCHED = (topics.SERVED.name, topics.LABELS.name)
_POLL_S = 0.2


class Ends(Protocol):
    """Where groups and topics stand: `lag.LogEnds`, or a fake of it."""

    async def lag(self, groups: tuple[str, ...]) -> dict[tuple[str, str, int], int]: ...

    async def offsets_at(
        self, names: tuple[str, ...], time_ms: int
    ) -> dict[tuple[str, int], int]: ...


class Monitor:
    """Follows the log, and holds the latest report."""

    def __init__(
        self,
        settings: MonitorSettings,
        *,
        ends: Ends,
        reader: Callable[[dict[tuple[str, int], int]], LogReader],
        measures: Measures,
        health: Health,
        now_ms: Callable[[], int],
    ) -> None:
        self.fold = Fold(settings)
        self._settings = settings
        self._ends = ends
        self._reader = reader
        self._measures = measures
        self._health = health
        self._now_ms = now_ms
        self._lag: Lag | DependencyUnavailable = {}
        self._latest: Report | None = None

    async def follow(self) -> None:
        """Fold the log until cancelled.

        Raises: DependencyUnavailable if Kafka cannot be reached at the start.
        """
        # What is older can neither meet a label nor lie in a window.
        since_ms = self._now_ms() - self._settings.join_window_ms
        reader = self._reader(await self._ends.offsets_at(WATCHED, since_ms))
        report_at = time.monotonic()
        try:
            while True:
                await self.take(await reader.poll(self._settings.records_per_poll, _POLL_S))
                if reader.caught_up:
                    self._health.ready(LOG)
                if time.monotonic() >= report_at:
                    report_at = time.monotonic() + self._settings.report_every_s
                    self._measures.own_lag(reader.lag())
                    self.measure()
        finally:
            await reader.close()

    async def follow_lag(self) -> None:
        """Read the lag of the groups until cancelled; brokers that do not answer are a finding,
        not a reason to stop.
        """
        while True:
            await self.read_lag()
            await asyncio.sleep(self._settings.report_every_s)

    async def read_lag(self) -> None:
        """Ask where the groups stand, for the next report."""
        try:
            self._lag = await self._ends.lag(self._settings.group_names)
        except DependencyUnavailable as error:
            self._lag = error

    async def take(self, records: Sequence[Record]) -> None:
        """Fold records of both topics; what cannot be read is counted and logged."""
        slates, labels = [], []
        for record in records:
            try:
                if record.topic == topics.SERVED.name:
                    slates.append(decode_slate(record))
                else:
                    labels.append(decode_labels(record))
            except InvalidBatch as error:
                self.fold.skipped[error.code] += 1
                structlog.get_logger().warning("record_skipped", reason=str(error))
        await self._meet_models(slates)
        self.fold.serve(slates)
        self.fold.label(labels)

    def measure(self) -> None:
        """Make the report and the metrics as of what has been folded."""
        figures = Figures(self.fold)
        found: list[Check] = checks(figures, self._lag, self._settings)
        self._latest = report(self.fold, figures, found, self._settings.window_ms)
        self._measures.set(self.fold, figures, found, self._lag)

    def latest(self) -> Report:
        """The report made last. Raises: NotReady before the log was read to its end once."""
        if self._latest is None or self._health.reasons():
            raise NotReady(
                "not_ready: the log has not been read to its end yet. Nothing can be said."
                " Try again in a few seconds."
            )
        return self._latest

    async def _meet_models(self, slates: Sequence[Slate]) -> None:
        unknown = self.fold.unknown_models(slates)
        for slate in slates:
            if slate.group.model_id in unknown and slate.sample() is not None:
                unknown.discard(slate.group.model_id)
                training = await asyncio.to_thread(self._training, slate.group.model_id)
                self.fold.add_model(slate, training)

    def _training(self, model_id: str) -> dict[str, Histogram]:
        """Training histograms of a model; empty, counted and logged if it has none."""
        # An id is text from the log: only its own folder may be read.
        folder = self._settings.artifacts / "ranker" / model_id
        try:
            if folder.parent != self._settings.artifacts / "ranker" or model_id in (".", ".."):
                raise InvalidArtifact(f"invalid_artifact: {model_id!r} is not a folder name.")
            stored = read_manifest(str(folder)).feature_histograms
            histograms = {name: decode_histogram(form) for name, form in stored.items()}
        except InvalidArtifact as error:
            self.fold.skipped["model_without_artifact"] += 1
            structlog.get_logger().warning("reference_missing", model=model_id, reason=str(error))
            return {}
        if not histograms:
            self.fold.skipped["model_without_histograms"] += 1
        return histograms


def add_routes(app: FastAPI, monitor: Monitor) -> None:
    """The HTTP surface."""

    @app.get("/v1/report")
    async def latest() -> Report:
        """Every check with its verdict, value, threshold and n."""
        return monitor.latest()
