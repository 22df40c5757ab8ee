"""The catalogue of metrics is consistent, and every line of it can be built."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from rankstream import metrics
from rankstream.adapters.metrics import Metrics

CATALOGUE = [entry for entry in vars(metrics).values() if isinstance(entry, metrics.Metric)]


def test_every_metric_has_our_prefix_a_name_of_its_own_and_help() -> None:
    names = [metric.name for metric in CATALOGUE]

    assert len(set(names)) == len(names)
    assert all(name.startswith("rankstream_") for name in names)
    assert all(metric.help.endswith(".") for metric in CATALOGUE)


def test_every_metric_can_be_built_once_and_is_then_the_same() -> None:
    built = Metrics(CollectorRegistry())
    make = {"counter": built.counter, "gauge": built.gauge, "histogram": built.histogram}

    for metric in CATALOGUE:
        assert make[metric.kind](metric) is make[metric.kind](metric)
