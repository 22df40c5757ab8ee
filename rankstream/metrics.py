"""Every metric: its name (unit last), kind, labels and buckets, said once.

Append a line to add one. `adapters.metrics.Metrics` turns a line into a Prometheus object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

PREFIX: Final = "rankstream_"

LATENCY_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
AGE_S: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
COUNT: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0)


@dataclass(frozen=True)
class Metric:
    """One metric. A counter's name ends in _total; `buckets` belong to histograms only."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"{PREFIX}{name}_total", "counter", help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(PREFIX + name, "gauge", help_, labels)


def _histogram(name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(PREFIX + name, "histogram", help_, labels, buckets)


# Ingest
INGEST_ACCEPTED: Final = _counter("ingest_accepted", "Events acked by the log.", "source", "kind")
INGEST_REJECTED: Final = _counter("ingest_rejected", "Events refused, by error code.", "source", "code")
INGEST_DEAD_LETTERS: Final = _counter("ingest_dead_letters", "Dead letters acked.", "code")
INGEST_REQUEST_SECONDS: Final = _histogram(
    "ingest_request_seconds", "From body read to answer.", LATENCY_S, "route"
)
INGEST_BATCH_EVENTS: Final = _histogram(
    "ingest_batch_events", "Events in one EventBatch record.", COUNT
)
INGEST_QUEUE_EVENTS: Final = _gauge("ingest_queue_events", "Events accepted but not yet acked.")

# Kafka
PRODUCE_SECONDS: Final = _histogram(
    "produce_seconds", "From send to the broker's ack.", LATENCY_S, "topic"
)
CONSUMER_LAG_RECORDS: Final = _gauge(
    "consumer_lag_records", "Records behind the end of the log.", "topic", "partition"
)

# Experiments
EXPERIMENTS_SKIPPED_RECORDS: Final = _gauge(
    "experiments_skipped_records", "Records not folded since the log's start.", "reason"
)
EXPERIMENT_UNITS: Final = _gauge("experiment_units", "Units exposed.", "experiment", "variant")
EXPERIMENT_METRIC: Final = _gauge(
    "experiment_metric", "Value of a metric in a variant.", "experiment", "variant", "metric"
)
EXPERIMENT_SRM_P_VALUE: Final = _gauge(
    "experiment_srm_p_value", "Anytime p-value that unit counts fit the weights.", "experiment"
)
