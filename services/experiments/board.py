"""All experiments and their tables of units: what the log says, folded. No I/O, no clock.

A record that cannot be read is counted and skipped: the topics have one writer each, so it is a
bug to be seen on the dashboard, not a reason to stop every scorecard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from rankstream.contracts.codec import decode_experiment
from rankstream.contracts.experiment import Experiment, Scorecard
from rankstream.contracts.high_water import HighWater
from rankstream.errors import Conflict, InvalidExperiment, UnknownExperiment
from rankstream.experiments.assign import check_amendment, check_layers
from rankstream.experiments.scorecard import Delta, UnitTable
from rankstream.pb import events_pb2 as pb


class Board:
    """Folds definitions, exposures and labels; answers with definitions and scorecards."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.label_rows = 0
        self._experiments: dict[str, Experiment] = {}
        self._tables: dict[str, UnitTable] = {}
        self._labels_seen = HighWater()
        self._watermarks: dict[int, int] = {}

    def define(self, record: bytes) -> None:
        """Fold a record of topic `experiments`; a version that is not newer changes nothing."""
        try:
            self.put(decode_experiment(record))
        except (InvalidExperiment, Conflict):
            self.skipped["invalid_experiment"] += 1

    def put(self, experiment: Experiment) -> None:
        """Take a definition that is in the log.

        Raises: InvalidExperiment or Conflict if it contradicts the one in force, which stays.
        """
        known = self._experiments.get(experiment.id)
        if known is not None and experiment.version <= known.version:
            return
        table = self._tables.get(experiment.id)
        if table is not None:
            table.amend(experiment)
        elif experiment.start_ms is not None:
            self._tables[experiment.id] = UnitTable(experiment)
        self._experiments[experiment.id] = experiment

    def expose(self, record: bytes) -> None:
        """Fold a record of topic `exposures`."""
        try:
            exposure = pb.Exposure.FromString(record)
        except DecodeError:
            self.skipped["invalid_exposure"] += 1
            return
        table = self._tables.get(exposure.experiment_id)
        if table is None:
            self.skipped["exposure_of_unknown_experiment"] += 1
            return
        try:
            table.expose(
                exposure.unit,
                exposure.variant,
                exposure.exposure_time_ms,
                overridden=exposure.overridden,
            )
        except InvalidExperiment:
            self.skipped["exposure_of_unknown_variant"] += 1

    def label(self, record: bytes) -> None:
        """Fold a record of topic `labels`; one that was folded before changes nothing."""
        try:
            batch = pb.LabelBatch.FromString(record)
        except DecodeError:
            self.skipped["invalid_label"] += 1
            return
        run = (batch.source_partition, batch.first_offset, batch.source_offset)
        if not self._labels_seen.follow(*run):
            self.skipped["label_seen_before"] += 1
            return
        self._watermarks[batch.source_partition] = batch.watermark_ms
        self.label_rows += len(batch.user_id)
        tables = tuple(self._tables.values())
        for user, impression_ms, delta in _deltas(batch):
            for table in tables:
                table.add(user, impression_ms, delta)

    def expire(self, exposure_wait_ms: int) -> None:
        """Drop labels that have waited for an exposure longer than this, in event time."""
        if self._watermarks:
            watermark_ms = min(self._watermarks.values()) - exposure_wait_ms
            for table in self._tables.values():
                table.expire(watermark_ms)

    def check(self, experiment: Experiment) -> None:
        """Refuse a definition that contradicts the ones in force.

        Raises: InvalidExperiment, or Conflict if its version is not the next one.
        """
        known = self._experiments.get(experiment.id)
        expected = known.version + 1 if known is not None else 1
        if experiment.version != expected:
            raise Conflict(
                f"conflict: experiment {experiment.id} version={experiment.version}, but the next"
                f" version is {expected}. Nothing was changed. Read it again and repeat the change."
            )
        if known is not None:
            check_amendment(known, experiment)
        others = [e for e in self._experiments.values() if e.id != experiment.id]
        check_layers([*others, experiment])
        if experiment.start_ms is not None:
            UnitTable(experiment)

    def experiment(self, experiment_id: str) -> Experiment:
        """The definition in force. Raises: UnknownExperiment."""
        try:
            return self._experiments[experiment_id]
        except KeyError:
            known = ", ".join(sorted(self._experiments)) or "none"
            raise UnknownExperiment(
                f"unknown_experiment: {experiment_id!r} (known: {known})."
                " Define it with POST /v1/experiments."
            ) from None

    def experiments(self) -> list[Experiment]:
        """All definitions, by id."""
        return [self._experiments[key] for key in sorted(self._experiments)]

    def scorecard(self, experiment_id: str, *, alpha: float) -> Scorecard:
        """The scorecard as of what has been folded.

        Raises: UnknownExperiment, or Conflict if the experiment was never started.
        """
        experiment = self.experiment(experiment_id)
        table = self._tables.get(experiment_id)
        if table is None:
            raise Conflict(
                f"conflict: experiment {experiment_id} is a {experiment.status} and has no"
                f" scorecard. Start it with POST /v1/experiments/{experiment_id}:start."
            )
        return table.scorecard(alpha=alpha)


def _deltas(batch: pb.LabelBatch) -> Iterable[tuple[str, int, Delta]]:
    """What each row of a record changes. A label that appears counts an impression."""
    columns = zip(
        batch.user_id,
        batch.impression_time_ms,
        batch.old_status,
        batch.new_status,
        batch.old_clicked,
        batch.new_clicked,
        batch.old_purchased,
        batch.new_purchased,
        batch.old_value_micros,
        batch.new_value_micros,
        strict=True,
    )
    for user, time_ms, was, now, click0, click1, purchase0, purchase1, value0, value1 in columns:
        delta = Delta(
            impressions=int(now != pb.LABEL_ABSENT) - int(was != pb.LABEL_ABSENT),
            clicks=click1 - click0,
            purchases=purchase1 - purchase0,
            value_micros=value1 - value0,
        )
        if delta != _UNCHANGED:
            yield batch.strings[user], time_ms, delta


_UNCHANGED = Delta()
