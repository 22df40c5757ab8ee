"""Everything the monitor knows: slates and labels folded into windows. No I/O, no clock.

Time is the log's: the newest record says what is in the window, so reading the same records again
gives the same report.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rankstream.contracts.high_water import HighWater
from rankstream.features.spec import NAMES, SPEC_ID
from rankstream.monitoring.answers import Answers
from rankstream.monitoring.calibration import Calibration
from rankstream.monitoring.feature_window import FeatureWindow
from rankstream.monitoring.freshness import Delays
from rankstream.monitoring.histogram import Histogram
from rankstream.monitoring.join import Group, Joined, SlateJoin
from rankstream.monitoring.panes import Panes, S
from services.monitor.records import Labels, Slate
from services.monitor.settings import MonitorSettings

PREDICTION = "pctr"
REASONS_MAX = 32
OTHERS = Group("other", "other")


class Model(NamedTuple):
    """Served features of one model. `trained` is False if its artefact has no histograms."""

    spec_id: str
    width: int
    trained: bool
    window: FeatureWindow


class Fold:
    """Folds slates and labels; holds at most `models_max` models and four times as many groups."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self.pane_ms = max(1, settings.window_ms // settings.panes)
        self._labels_seen = HighWater()
        self.join = SlateJoin(
            window_ms=settings.join_window_ms,
            slates_max=settings.slates_max,
            early_max=settings.early_labels_max,
        )
        self.as_of_ms = 0
        self.slates: Counter[Group] = Counter()
        self.skipped: Counter[str] = Counter()
        self.degraded: Counter[str] = Counter()
        self.models: dict[str, Model] = {}
        self.calibration: dict[Group, Panes[Calibration]] = {}
        self.answers = self._panes(Answers)
        self.served_delay = self._panes(Delays)
        self.label_delay = self._panes(Delays)
        self.click_delay = self._panes(Delays)

    def unknown_models(self, slates: Iterable[Slate]) -> set[str]:
        """Models of these slates whose reference has not been given yet."""
        scored = {slate.group.model_id for slate in slates if slate.sample() is not None}
        return scored - set(self.models)

    def add_model(self, slate: Slate, training: Mapping[str, Histogram]) -> None:
        """Start to watch the features of the model that served `slate`.

        Args:
            slate: one of its answers: says how many features there are.
            training: its training histograms by feature; empty if it has none.
        """
        width = slate.features.shape[1]
        known = slate.spec_id == SPEC_ID and width == len(NAMES)
        names = NAMES if known else tuple(f"feature_{number}" for number in range(width))
        window = FeatureWindow(
            (*names, PREDICTION),
            training,
            first_window_rows=self._settings.first_window_rows,
            pane_ms=self.pane_ms,
            panes=self._settings.panes,
        )
        model_id = slate.group.model_id
        self.models[model_id] = Model(slate.spec_id, width, bool(training), window)
        while len(self.models) > self._settings.models_max:
            del self.models[next(iter(self.models))]
            self.skipped["model_over_limit"] += 1

    def serve(self, slates: Sequence[Slate]) -> None:
        """Fold slates; their models must have been added."""
        if not slates:
            return
        rows: defaultdict[tuple[str, int], list[npt.NDArray[np.float32]]] = defaultdict(list)
        for slate in slates:
            self._serve_one(slate)
            row = slate.sample()
            model = self.models.get(slate.group.model_id)
            if row is None or model is None:
                continue
            if (slate.spec_id, len(row)) != (model.spec_id, model.width + 1):
                self.skipped["features_of_another_spec"] += 1
                continue
            pane = slate.served_time_ms // self.pane_ms
            rows[slate.group.model_id, pane].append(row)
        for (model_id, pane), held in sorted(rows.items()):
            # Least recently served first: that one goes when there are too many.
            model = self.models[model_id] = self.models.pop(model_id)
            model.window.add(pane * self.pane_ms, np.stack(held))
        self.advance(max(slate.seen_ms for slate in slates))

    def label(self, batches: Sequence[Labels]) -> None:
        """Fold label records; one that was folded before changes nothing."""
        if not batches:
            return
        joined = []
        for batch in batches:
            run = (batch.source_partition, batch.first_offset, batch.source_offset)
            if not self._labels_seen.follow(*run):
                self.skipped["labels_seen_before"] += 1
                continue
            found = (self.join.label(change) for change in batch.changes)
            joined += [pair for pair in found if pair is not None]
        self._calibrate(joined)
        self.advance(max(batch.seen_ms for batch in batches))

    def advance(self, as_of_ms: int) -> None:
        """Let go what has left the windows by this time of the log."""
        self.as_of_ms = max(self.as_of_ms, as_of_ms)
        self.join.advance(self.as_of_ms)
        self.answers.advance(self.as_of_ms)
        for delays in (self.served_delay, self.label_delay, self.click_delay):
            delays.advance(self.as_of_ms)
        for model in self.models.values():
            model.window.advance(self.as_of_ms)
        for group in list(self.calibration):
            self.calibration[group].advance(self.as_of_ms)
            if self.calibration[group].merged() is None:
                del self.calibration[group]

    def _serve_one(self, slate: Slate) -> None:
        room = len(self.slates) < 4 * self._settings.models_max
        self.slates[slate.group if slate.group in self.slates or room else OTHERS] += 1
        for reason in set(slate.degraded):
            known = reason in self.degraded or len(self.degraded) < REASONS_MAX
            self.degraded[reason if known else "other"] += 1
        self.answers.add(slate.served_time_ms, Answers.of([slate.degraded]))
        delay = Delays.of([slate.seen_ms - slate.served_time_ms])
        self.served_delay.add(slate.served_time_ms, delay)
        if slate.pctr:
            self._calibrate(
                self.join.serve(
                    slate.request_id,
                    slate.served_time_ms,
                    slate.group,
                    slate.item_ids,
                    slate.pctr,
                )
            )

    def _calibrate(self, joined: Sequence[Joined]) -> None:
        by_pane: defaultdict[tuple[Group, int], list[Joined]] = defaultdict(list)
        for pair in joined:
            pane = pair.shown_ms // self.pane_ms
            by_pane[pair.group, pane].append(pair)
        for (group, pane), pairs in by_pane.items():
            summary = Calibration.of(
                np.array([pair.pctr for pair in pairs]),
                np.array([pair.change.impressions for pair in pairs], dtype=np.int64),
                np.array([pair.change.clicks for pair in pairs], dtype=np.int64),
            )
            self._calibration_of(group).add(pane * self.pane_ms, summary)
            self._time(pane * self.pane_ms, pairs)

    def _calibration_of(self, group: Group) -> Panes[Calibration]:
        # Most recently labelled last: the first one goes when there are too many.
        panes = self.calibration.pop(group, None) or self._panes(Calibration)
        self.calibration[group] = panes
        while len(self.calibration) > 4 * self._settings.models_max:
            del self.calibration[next(iter(self.calibration))]
            self.skipped["group_over_limit"] += 1
        return panes

    def _time(self, pane_start_ms: int, pairs: Sequence[Joined]) -> None:
        labels = [
            pair.change.seen_ms - pair.change.impression_time_ms
            for pair in pairs
            if pair.change.impressions > 0
        ]
        clicks = [pair.change.seen_ms - pair.shown_ms for pair in pairs if pair.change.clicks > 0]
        for panes, delays in ((self.label_delay, labels), (self.click_delay, clicks)):
            if delays:
                panes.add(pane_start_ms, Delays.of(delays))

    def _panes(self, _summary: type[S]) -> Panes[S]:
        return Panes(pane_ms=self.pane_ms, count=self._settings.panes)
