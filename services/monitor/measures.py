"""The figures as Prometheus metrics. A subject that has gone takes its series along."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from prometheus_client import Counter as PrometheusCounter
from prometheus_client import Gauge

from rankstream import metrics
from rankstream.adapters.metrics import Metrics
from rankstream.errors import RankstreamError
from rankstream.monitoring.checks import Check
from services.monitor.fold import Fold
from services.monitor.report import Figures, Lag

QUANTILES = (0.5, 0.99)
VERDICTS = ("pass", "fail", "inconclusive", "error")


class Measures:
    """Sets every metric of the monitor."""

    def __init__(self, metrics_of: Metrics) -> None:
        self._slates = metrics_of.counter(metrics.MONITOR_SLATES)
        self._skipped = metrics_of.counter(metrics.MONITOR_SKIPPED_RECORDS)
        self._reasons = metrics_of.counter(metrics.MONITOR_DEGRADED_SLATES)
        self._labels = metrics_of.gauge(metrics.MONITOR_LABELS)
        self._evicted = metrics_of.gauge(metrics.MONITOR_EVICTED_SLATES)
        self._impressions = metrics_of.gauge(metrics.MONITOR_IMPRESSIONS)
        self._observed = metrics_of.gauge(metrics.MONITOR_OBSERVED_CTR_RATIO)
        self._predicted = metrics_of.gauge(metrics.MONITOR_PREDICTED_CTR_RATIO)
        self._ratio = metrics_of.gauge(metrics.MONITOR_OBSERVED_EXPECTED_RATIO)
        self._ece = metrics_of.gauge(metrics.MONITOR_ECE_RATIO)
        self._psi = metrics_of.gauge(metrics.MONITOR_PSI)
        self._ks = metrics_of.gauge(metrics.MONITOR_KS)
        self._delay = metrics_of.gauge(metrics.MONITOR_DELAY_MS)
        self._degraded = metrics_of.gauge(metrics.MONITOR_DEGRADED_RATIO)
        self._group_lag = metrics_of.gauge(metrics.MONITOR_GROUP_LAG_RECORDS)
        self._checks = metrics_of.gauge(metrics.MONITOR_CHECKS)
        self._own_lag = metrics_of.gauge(metrics.CONSUMER_LAG_RECORDS)
        self._told: dict[PrometheusCounter, Counter[tuple[str, ...]]] = {}

    def own_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """How far the monitor itself is behind the log."""
        for (topic, partition), records in lag.items():
            self._own_lag.labels(topic, str(partition)).set(records)

    def set(
        self, fold: Fold, figures: Figures, found: Sequence[Check], lag: Lag | RankstreamError
    ) -> None:
        """Bring all metrics to what has been folded."""
        self._raise(self._slates, {tuple(group): n for group, n in fold.slates.items()})
        self._raise(self._skipped, {(reason,): n for reason, n in fold.skipped.items()})
        self._raise(self._reasons, {(reason,): n for reason, n in fold.degraded.items()})
        counts = fold.join.counts
        for outcome in ("joined", "early", "unmatched"):
            self._labels.labels(outcome).set(getattr(counts, outcome))
        self._evicted.set(counts.slates_evicted)
        self._set_calibration(figures)
        self._set_drift(figures)
        self._set_delays(figures)
        share = None if figures.answers is None else figures.answers.degraded_share
        self._degraded.set(math.nan if share is None else share)
        if not isinstance(lag, RankstreamError):
            _replace(self._group_lag, {(g, t, str(p)): float(n) for (g, t, p), n in lag.items()})
        self._set_checks(found)

    def _set_calibration(self, figures: Figures) -> None:
        found = figures.calibration.items()
        _replace(self._impressions, {group: float(shape.n) for group, (shape, _) in found})
        _replace(self._observed, {group: shape.mean_observed for group, (shape, _) in found})
        _replace(self._predicted, {group: shape.mean_predicted for group, (shape, _) in found})
        _replace(self._ece, {group: shape.ece for group, (shape, _) in found})
        _replace(self._ratio, {group: ratio.ratio for group, (_, ratio) in found})

    def _set_drift(self, figures: Figures) -> None:
        measured = {
            (model_id, entry.feature): entry.drift
            for model_id, found in figures.drift.items()
            for entry in found
            if entry.drift is not None
        }
        _replace(self._psi, {subject: drift.psi_excess for subject, drift in measured.items()})
        _replace(self._ks, {subject: drift.ks for subject, drift in measured.items()})

    def _set_delays(self, figures: Figures) -> None:
        for stage, delays in figures.delays.items():
            for q in QUANTILES:
                self._delay.labels(stage, f"{q:g}").set(delays.quantile_ms(q))

    def _set_checks(self, found: Sequence[Check]) -> None:
        counted = Counter((check.name, str(check.verdict)) for check in found)
        _replace(
            self._checks,
            {
                (name, verdict): float(counted[name, verdict])
                for name in {check.name for check in found}
                for verdict in VERDICTS
            },
        )

    def _raise(self, counter: PrometheusCounter, totals: Mapping[tuple[str, ...], int]) -> None:
        """Raise a counter to totals that were counted elsewhere."""
        told = self._told.setdefault(counter, Counter())
        for labels, total in totals.items():
            counter.labels(*labels).inc(total - told[labels])
            told[labels] = total


def _replace(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    gauge.clear()
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
