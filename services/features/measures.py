"""What the features service measures, built once."""

from __future__ import annotations

from rankstream import metrics
from rankstream.adapters.metrics import Metrics


class Measures:
    """Prometheus objects by name."""

    def __init__(self, metrics_of: Metrics) -> None:
        self.events = metrics_of.gauge(metrics.FEATURES_EVENTS)
        self.records = metrics_of.counter(metrics.FEATURES_RECORDS)
        self.freshness = metrics_of.histogram(metrics.FEATURES_FRESHNESS_SECONDS)
        self.commit_seconds = metrics_of.histogram(metrics.FEATURES_COMMIT_SECONDS)
        self.send_seconds = metrics_of.histogram(metrics.FEATURES_SEND_SECONDS)
        self.fold_seconds = metrics_of.histogram(metrics.FEATURES_FOLD_SECONDS)
        self.rows = metrics_of.counter(metrics.FEATURES_ROWS)
        self.watermark_delay = metrics_of.gauge(metrics.FEATURES_WATERMARK_DELAY_SECONDS)
        self.state = metrics_of.gauge(metrics.FEATURES_STATE)
        self.ticks = metrics_of.counter(metrics.FEATURES_TICKS)
        self.dead_letters = metrics_of.counter(metrics.FEATURES_DEAD_LETTERS)
        self.snapshots = metrics_of.counter(metrics.FEATURES_SNAPSHOTS)
        self.replayed = metrics_of.counter(metrics.FEATURES_REPLAYED_RECORDS)
        self.rejoins = metrics_of.counter(metrics.FEATURES_REJOINS)
        self.rebuilds = metrics_of.counter(metrics.FEATURES_REBUILDS)
        self.restarts = metrics_of.counter(metrics.FEATURES_RESTARTS)
        self.lake_rows = metrics_of.counter(metrics.FEATURES_LAKE_ROWS)
        self.lake_skipped = metrics_of.counter(metrics.FEATURES_LAKE_SKIPPED)
        self.lake_flush_seconds = metrics_of.histogram(metrics.FEATURES_LAKE_FLUSH_SECONDS)
        self.lag = metrics_of.gauge(metrics.CONSUMER_LAG_RECORDS)
