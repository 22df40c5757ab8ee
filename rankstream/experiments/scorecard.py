"""Fold exposures and label deltas of one experiment into a table of units, and read the scorecard
off it.

The result does not depend on the order in which exposures and labels arrive:

- a unit's first exposure is the earliest one seen; its variants are a set. A unit seen in two
  variants, or ever forced by an override, is left out and counted: dropping either half would bias
  the comparison.
- a label counts if the unit was exposed no later than its impression. One that cannot count yet
  (unit not exposed, or only later) waits in `pending`, keyed by unit and impression time, so that a
  retracted label cancels there too.
- `expire(watermark_ms)` drops what can no longer count. A promise backs it: no exposure before the
  watermark is still to come. `pending_limit` is the last resort; what it drops is counted and
  flagged.

Label deltas are not idempotent: the caller drops records that it has folded already.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankstream.contracts.experiment import (
    Estimate,
    Experiment,
    Flag,
    MetricValue,
    Scorecard,
    SrmCheck,
    VariantTotals,
)
from rankstream.errors import InvalidExperiment
from rankstream.experiments.assign import check_amendment
from rankstream.experiments.inference import Arm, ratio_mean
from rankstream.experiments.metrics import CATALOGUE, Column, Metric, Moments, exact_sum, metric
from rankstream.experiments.sequential import anytime
from rankstream.experiments.srm import check_srm

Int64Array = NDArray[np.int64]
PENDING_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Delta:
    """New minus old value of one label, by counter of its impression; money in micros."""

    impressions: int = 0
    clicks: int = 0
    purchases: int = 0
    value_micros: int = 0

    def __add__(self, other: "Delta") -> "Delta":
        return Delta(
            self.impressions + other.impressions,
            self.clicks + other.clicks,
            self.purchases + other.purchases,
            self.value_micros + other.value_micros,
        )


_NOTHING = Delta()


class UnitTable:
    """The state of one experiment: a column per fact, a row per exposed unit. O(1) per event."""

    def __init__(self, experiment: Experiment, *, pending_limit: int = PENDING_LIMIT) -> None:
        """Start empty. Raises: InvalidExperiment if the experiment has no start or an unknown
        metric.
        """
        if experiment.start_ms is None:
            raise InvalidExperiment(
                f"experiment {experiment.id} has no start_ms: it has no scorecard. Start it first."
            )
        self._define(experiment)
        self.labels_unexposed = 0
        self.labels_outside = 0
        self.labels_dropped = 0
        self._pending_limit = pending_limit
        self._rows: dict[str, int] = {}
        self._seen = array("q")
        self._first_ms = array("q")
        self._sums: dict[Column, array[int]] = {
            "impressions": array("q"),
            "clicks": array("q"),
            "purchases": array("q"),
            "value_micros": array("q"),
        }
        self._pending: dict[str, dict[int, Delta]] = {}
        self._pending_count = 0

    @property
    def labels_pending(self) -> int:
        """How many (unit, impression time) pairs wait for an exposure."""
        return self._pending_count

    def amend(self, experiment: Experiment) -> None:
        """Take a later definition of the same experiment.

        Raises: Conflict, see `check_amendment`; InvalidExperiment for an unknown metric.
        """
        check_amendment(self.experiment, experiment)
        self._define(experiment)

    def expose(self, unit: str, variant: str, exposed_ms: int, *, overridden: bool = False) -> None:
        """Fold one exposure; repeats and any order are fine. Exposures outside [start_ms, stop_ms)
        are ignored.

        Raises: InvalidExperiment if the experiment has no such variant; nothing is folded.
        """
        bit = self._bits.get(variant)
        if bit is None:
            raise InvalidExperiment(
                f"experiment {self.experiment.id} has no variant {variant} (unit {unit}, "
                f"exposed_ms={exposed_ms}). The exposure was not counted."
            )
        if self._inside(exposed_ms):
            self._expose(unit, bit | self._override_bit if overridden else bit, exposed_ms)

    def add(self, unit: str, impression_ms: int, delta: Delta) -> None:
        """Fold one label delta. `impression_ms` is the impression's time: a retraction carries the
        old one.
        """
        if impression_ms < (self.experiment.start_ms or 0):
            return  # before it began; the table may not have existed when this was first read
        if not self._inside(impression_ms):
            self.labels_outside += 1
            return
        row = self._rows.get(unit)
        if row is not None and impression_ms >= self._first_ms[row]:
            self._count(row, delta)
            return
        self._wait(unit, impression_ms, delta)

    def expire(self, watermark_ms: int) -> None:
        """Drop pending labels whose impression is before `watermark_ms`, the time before which all
        exposures are in.
        """
        for unit in list(self._pending):
            waiting = self._pending[unit]
            for impression_ms in [t for t in waiting if t < watermark_ms]:
                del waiting[impression_ms]
                self._pending_count -= 1
                self.labels_unexposed += 1
            if not waiting:
                del self._pending[unit]

    def merge(self, other: "UnitTable") -> None:
        """Fold another shard of the same definition in. Associative and commutative while nothing
        is dropped.
        """
        assert self.experiment == other.experiment, "shards share one definition"
        for unit, row in other._rows.items():
            mine = self._expose(unit, other._seen[row], other._first_ms[row])
            for column, sums in self._sums.items():
                sums[mine] += other._sums[column][row]
        for unit, waiting in other._pending.items():
            for impression_ms, delta in waiting.items():
                self.add(unit, impression_ms, delta)
        self.labels_unexposed += other.labels_unexposed
        self.labels_outside += other.labels_outside
        self.labels_dropped += other.labels_dropped

    def scorecard(self, *, alpha: float) -> Scorecard:
        """Return the scorecard as of the events folded so far: anytime intervals, so it may be read
        at any time.

        Where the unit counts do not fit the weights every verdict reads `srm_mismatch`: the arms
        are not comparable, whatever the numbers say.
        """
        experiment = self.experiment
        arms = [self._columns(self._bits[v.name]) for v in experiment.variants]
        moments = {m.name: [_moments(m, columns) for columns in arms] for m in CATALOGUE.values()}
        counts = [len(columns["clicks"]) for columns in arms]
        srm = check_srm(counts, [v.weight_bp for v in experiment.variants])
        estimates = self._estimates(moments, srm, alpha)
        overridden = self._seen_array() & self._override_bit != 0
        mixed = int(np.count_nonzero(~overridden)) - sum(counts)
        return Scorecard(
            experiment_id=experiment.id,
            version=experiment.version,
            alpha=alpha,
            control=experiment.control,
            primary_metric=experiment.primary_metric,
            variants=tuple(
                _totals(v.name, arms[i], {name: arm[i] for name, arm in moments.items()})
                for i, v in enumerate(experiment.variants)
            ),
            estimates=estimates,
            srm=srm,
            flags=self._flags(estimates, srm, mixed),
            units_mixed=mixed,
            units_overridden=int(np.count_nonzero(overridden)),
            labels_pending=self._pending_count,
            labels_unexposed=self.labels_unexposed,
            labels_outside=self.labels_outside,
            labels_dropped=self.labels_dropped,
        )

    def _define(self, experiment: Experiment) -> None:
        for name in (experiment.primary_metric, *experiment.guardrails):
            metric(name)
        self.experiment = experiment
        # Only a draft may change its variants, and a draft has folded nothing.
        self._bits = {v.name: 1 << i for i, v in enumerate(experiment.variants)}
        self._override_bit = 1 << len(experiment.variants)

    def _inside(self, at_ms: int) -> bool:
        if self.experiment.status == "draft":
            return False
        start, stop = self.experiment.start_ms, self.experiment.stop_ms
        return start is not None and at_ms >= start and (stop is None or at_ms < stop)

    def _expose(self, unit: str, bits: int, exposed_ms: int) -> int:
        row = self._rows.get(unit)
        if row is None:
            row = self._rows[unit] = len(self._seen)
            self._seen.append(bits)
            self._first_ms.append(exposed_ms)
            for sums in self._sums.values():
                sums.append(0)
        else:
            self._seen[row] |= bits
            if exposed_ms >= self._first_ms[row]:
                return row
            self._first_ms[row] = exposed_ms
        self._release(unit, row)
        return row

    def _release(self, unit: str, row: int) -> None:
        waiting = self._pending.get(unit)
        if waiting is None:
            return
        for impression_ms in [t for t in waiting if t >= self._first_ms[row]]:
            self._count(row, waiting.pop(impression_ms))
            self._pending_count -= 1
        if not waiting:
            del self._pending[unit]

    def _count(self, row: int, delta: Delta) -> None:
        self._sums["impressions"][row] += delta.impressions
        self._sums["clicks"][row] += delta.clicks
        self._sums["purchases"][row] += delta.purchases
        self._sums["value_micros"][row] += delta.value_micros

    def _wait(self, unit: str, impression_ms: int, delta: Delta) -> None:
        waiting = self._pending.get(unit, {})
        present = impression_ms in waiting
        if not present and self._pending_count >= self._pending_limit:
            self.labels_dropped += 1
            return
        waiting[impression_ms] = waiting.get(impression_ms, _NOTHING) + delta
        self._pending[unit] = waiting
        self._pending_count += not present

    def _seen_array(self) -> Int64Array:
        return np.array(self._seen, dtype=np.int64)

    def _columns(self, bit: int) -> dict[Column, Int64Array]:
        # Seen in exactly this variant and never forced: `seen` then is the bit itself.
        rows = self._seen_array() == bit
        return {
            name: np.frombuffer(sums, dtype=np.int64)[rows] if len(sums) else _EMPTY
            for name, sums in self._sums.items()
        }

    def _estimates(
        self, moments: dict[str, list[Moments]], srm: SrmCheck, alpha: float
    ) -> tuple[Estimate, ...]:
        names = [v.name for v in self.experiment.variants]
        control = names.index(self.experiment.control)
        found = (
            anytime(
                CATALOGUE[name],
                Arm(names[control], arms[control]),
                Arm(names[i], arms[i]),
                alpha=alpha,
                planned_lift=self.experiment.planned_lift,
            )
            for name, arms in moments.items()
            for i in range(len(names))
            if i != control
        )
        if srm.verdict != "fail":
            return tuple(found)
        return tuple(e.model_copy(update={"verdict": "srm_mismatch"}) for e in found)

    def _flags(self, estimates: Iterable[Estimate], srm: SrmCheck, mixed: int) -> tuple[Flag, ...]:
        guardrails = self.experiment.guardrails
        worse = any(e.metric in guardrails and e.verdict == "worse" for e in estimates)
        raised: list[tuple[Flag, bool]] = [
            ("srm_mismatch", srm.verdict == "fail"),
            ("mixed_units", mixed > 0),
            ("labels_dropped", self.labels_dropped > 0),
            ("guardrail_worse", worse),
        ]
        return tuple(flag for flag, is_raised in raised if is_raised)


_EMPTY: Int64Array = np.empty(0, dtype=np.int64)


def _moments(metric: Metric, columns: dict[Column, Int64Array]) -> Moments:
    y = columns[metric.numerator]
    return Moments.of(y, columns[metric.denominator] if metric.denominator is not None else None)


def _totals(
    name: str, columns: dict[Column, Int64Array], moments: dict[str, Moments]
) -> VariantTotals:
    return VariantTotals(
        variant=name,
        units=len(columns["impressions"]),
        impressions=exact_sum(columns["impressions"]),
        clicks=exact_sum(columns["clicks"]),
        purchases=exact_sum(columns["purchases"]),
        value_micros=exact_sum(columns["value_micros"]),
        metrics=tuple(_value(CATALOGUE[metric], arm) for metric, arm in moments.items()),
    )


def _value(metric: Metric, moments: Moments) -> MetricValue:
    mean = ratio_mean(moments)
    if mean is None:
        return MetricValue(metric=metric.name, value=None, se=None)
    return MetricValue(
        metric=metric.name,
        value=mean.value * metric.scale,
        se=float(np.sqrt(mean.variance)) * metric.scale,
    )
