"""Prometheus objects of the metrics catalogue."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

from rankstream.metrics import Metric


class Metrics:
    """The metrics of one process on one registry, with its CPU seconds and resident bytes.

    An object is built when it is first asked for, so a service exports only what it uses: ask
    for all of them when the service is built, not on the hot path.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        ProcessCollector(namespace="rankstream", registry=registry)

    def counter(self, metric: Metric) -> Counter:
        """The counter of a catalogue line."""
        assert metric.kind == "counter", metric
        if metric.name not in self._counters:
            self._counters[metric.name] = Counter(
                metric.name, metric.help, metric.labels, registry=self.registry
            )
        return self._counters[metric.name]

    def gauge(self, metric: Metric) -> Gauge:
        """The gauge of a catalogue line."""
        assert metric.kind == "gauge", metric
        if metric.name not in self._gauges:
            self._gauges[metric.name] = Gauge(
                metric.name, metric.help, metric.labels, registry=self.registry
            )
        return self._gauges[metric.name]

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of a catalogue line."""
        assert metric.kind == "histogram", metric
        if metric.name not in self._histograms:
            self._histograms[metric.name] = Histogram(
                metric.name,
                metric.help,
                metric.labels,
                buckets=metric.buckets,
                registry=self.registry,
            )
        return self._histograms[metric.name]
