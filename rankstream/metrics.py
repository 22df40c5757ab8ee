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


# Access
ACCESS_CALLS: Final = _counter("access_calls", "Calls by API key.", "key", "outcome")

# Ingest
INGEST_ACCEPTED: Final = _counter("ingest_accepted", "Events acked by the log.", "source", "kind")
INGEST_REJECTED: Final = _counter(
    "ingest_rejected", "Events refused, by error code.", "source", "code"
)
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
CONSUMER_STOPPED: Final = _gauge(
    "consumer_stopped", "1: too much was refused, and it waits for a person.", "consumer"
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

# Monitor
MONITOR_SLATES: Final = _counter("monitor_slates", "Slates read.", "model", "variant")
MONITOR_LABELS: Final = _gauge(
    "monitor_labels", "Label changes since start: joined, early, unmatched.", "outcome"
)
MONITOR_SKIPPED_RECORDS: Final = _counter(
    "monitor_skipped_records", "Records not folded.", "reason"
)
MONITOR_EVICTED_SLATES: Final = _gauge(
    "monitor_evicted_slates", "Slates dropped for space before their window ended, since start."
)
MONITOR_IMPRESSIONS: Final = _gauge(
    "monitor_impressions", "Labelled impressions in the window.", "model", "variant"
)
MONITOR_OBSERVED_CTR_RATIO: Final = _gauge(
    "monitor_observed_ctr_ratio", "Clicks seen per impression in the window.", "model", "variant"
)
MONITOR_PREDICTED_CTR_RATIO: Final = _gauge(
    "monitor_predicted_ctr_ratio", "Mean pctr of the same impressions.", "model", "variant"
)
MONITOR_OBSERVED_EXPECTED_RATIO: Final = _gauge(
    "monitor_observed_expected_ratio",
    "Clicks seen over clicks expected by now (delay-weighted).",
    "model",
    "variant",
)
MONITOR_ECE_RATIO: Final = _gauge(
    "monitor_ece_ratio", "Expected calibration error.", "model", "variant"
)
MONITOR_PSI: Final = _gauge(
    "monitor_psi", "PSI of a feature less its mean under no drift.", "model", "feature"
)
MONITOR_KS: Final = _gauge(
    "monitor_ks", "Kolmogorov-Smirnov distance of a feature.", "model", "feature"
)
MONITOR_DELAY_MS: Final = _gauge(
    "monitor_delay_ms", "Delay by stage: served to log, impression to label.", "stage", "quantile"
)
MONITOR_DEGRADED_RATIO: Final = _gauge(
    "monitor_degraded_ratio", "Share of slates in the window that lacked something."
)
MONITOR_DEGRADED_SLATES: Final = _counter(
    "monitor_degraded_slates", "Slates that lacked something, by what.", "reason"
)
MONITOR_GROUP_LAG_RECORDS: Final = _gauge(
    "monitor_group_lag_records", "Records a group is behind.", "group", "topic", "partition"
)
MONITOR_CHECKS: Final = _gauge(
    "monitor_checks", "Subjects of a check, by verdict.", "check", "verdict"
)

# Following compacted topics, and gRPC (retrieval, ranker)
FOLLOW_REFUSED: Final = _counter(
    "follow_refused", "Records of a followed topic that were refused.", "topic", "code"
)
FOLLOW_RESTARTS: Final = _counter("follow_restarts", "Times that the log could not be read.")
MODEL_INFO: Final = _gauge("model_info", "1 for what an alias serves.", "role", "alias", "model_id")

# Retrieval
RETRIEVAL_REQUESTS: Final = _counter("retrieval_requests", "Answers, by status.", "status")
RETRIEVAL_SECONDS: Final = _histogram(
    "retrieval_seconds", "From request to answer.", LATENCY_S, "source"
)
RETRIEVAL_DEGRADED: Final = _counter("retrieval_degraded", "Fallbacks taken.", "reason")
RETRIEVAL_CANDIDATES: Final = _counter(
    "retrieval_candidates", "Candidates of answers, by each source that named them.", "source"
)
RETRIEVAL_DROPPED: Final = _counter(
    "retrieval_dropped",
    "Answers of a source that were dropped: its best was below the floor.",
    "source",
)
RETRIEVAL_FILLED: Final = _counter(
    "retrieval_filled", "Candidates that a fallback gave, because sources had too few.", "source"
)
RETRIEVAL_ITEMS: Final = _gauge("retrieval_items", "Items of the index.", "state")

# Ranker
RANKER_REQUESTS: Final = _counter(
    "ranker_requests", "Answers, by error code or ok.", "method", "transport", "status"
)
RANKER_QUEUE_SECONDS: Final = _histogram(
    "ranker_queue_seconds", "Wait of a request until it begins.", LATENCY_S
)
RANKER_STAGE_SECONDS: Final = _histogram(
    "ranker_stage_seconds", "Time of one step of an answer.", LATENCY_S, "stage"
)
RANKER_DEGRADED: Final = _counter("ranker_degraded", "Fallbacks taken.", "reason")
RANKER_CANDIDATES: Final = _histogram("ranker_candidates", "Candidates scored.", COUNT)
RANKER_IN_FLIGHT: Final = _gauge("ranker_in_flight", "Requests being answered.")
RANKER_CIRCUIT_OPEN: Final = _gauge(
    "ranker_circuit_open", "1: it was late again and again, and is only probed.", "dependency"
)
RANKER_SHARD_FAILURES: Final = _counter(
    "ranker_shard_failures", "Calls of a shard of retrieval without an answer.", "shard", "reason"
)
RANKER_ROWS: Final = _counter(
    "ranker_rows", "Rows of candidates, by where they came from: kept or store.", "view", "source"
)
RANKER_ROWS_TRACKED: Final = _gauge(
    "ranker_rows_tracked", "1 while Redis tells of changed rows; 0: kept rows grow old instead."
)
RANKER_ROWS_STALE: Final = _histogram(
    "ranker_item_rows_stale_seconds",
    "For how long the worst item row of an answer may have been out of date.",
    LATENCY_S,
)
RANKER_RATED_ITEMS: Final = _gauge(
    "ranker_rated_items", "Items of the rating table in use; 0: its features are at their defaults."
)
RANKER_LOG_QUEUE: Final = _gauge("ranker_log_queue", "Records of answers not yet acked.")
RANKER_LOG_RECORDS: Final = _counter(
    "ranker_log_records", "Records of answers, by fate.", "topic", "fate"
)
RANKER_SHADOW_ANSWERS: Final = _counter(
    "ranker_shadow_answers", "Answers offered to the shadow: logged, lost, failed, dropped.", "fate"
)
RANKER_SHADOW_SECONDS: Final = _histogram(
    "ranker_shadow_seconds", "Scoring by the shadow, at low priority.", LATENCY_S
)
RANKER_CANARY_ANSWERS: Final = _counter(
    "ranker_canary_answers",
    "Answers of canary and control: ok, slow, not_finite, error.",
    "arm",
    "model_id",
    "outcome",
)
RANKER_CANARY_EVIDENCE: Final = _gauge(
    "ranker_canary_evidence",
    "Logarithm of the evidence that the canary fails more often than its control.",
    "model_id",
)
RANKER_CANARY_OFF: Final = _gauge(
    "ranker_canary_rolled_back", "1 when a canary was taken off for its failures.", "model_id"
)

# Features
FRESHNESS_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0, 60.0, 3600.0
)  # fmt: skip
FEATURES_EVENTS: Final = _gauge(
    "features_events", "Events since the log's start, by fate.", "stage", "fate"
)
FEATURES_RECORDS: Final = _counter("features_records", "Records folded and committed.", "stage")
FEATURES_FRESHNESS_SECONDS: Final = _histogram(
    "features_freshness_seconds",
    "From a record's append, or its newest event, to its commit in Redis.",
    FRESHNESS_S,
    "stage",
    "since",
)
FEATURES_COMMIT_SECONDS: Final = _histogram(
    "features_commit_seconds", "One Redis transaction.", LATENCY_S, "stage"
)
FEATURES_SEND_SECONDS: Final = _histogram(
    "features_send_seconds", "Outputs of one batch, until Kafka has them.", LATENCY_S, "stage"
)
FEATURES_FOLD_SECONDS: Final = _histogram(
    "features_fold_seconds", "Fold of one batch.", LATENCY_S, "stage"
)
FEATURES_ROWS: Final = _counter("features_rows", "Rows written to Redis.", "stage")
FEATURES_WATERMARK_DELAY_SECONDS: Final = _gauge(
    "features_watermark_delay_seconds", "Watermark behind the clock.", "partition"
)
FEATURES_STATE: Final = _gauge("features_state", "Entries of state.", "stage", "part")
FEATURES_TICKS: Final = _counter("features_ticks", "Ticks appended to idle partitions.")
FEATURES_DEAD_LETTERS: Final = _counter("features_dead_letters", "Dead letters acked.", "code")
FEATURES_SNAPSHOTS: Final = _counter(
    "features_snapshots", "Snapshots: saved, failed, refused at load.", "stage", "outcome"
)
FEATURES_REPLAYED_RECORDS: Final = _counter(
    "features_replayed_records", "Records folded again to rebuild state.", "stage"
)
FEATURES_REBUILDS: Final = _counter(
    "features_rebuilds", "Partitions whose rows were all written again, and why.", "stage", "reason"
)
FEATURES_REJOINS: Final = _counter(
    "features_rejoins", "Times that the worker became a new member of its group."
)
FEATURES_RESTARTS: Final = _counter(
    "features_restarts", "Partitions opened again after an outage.", "stage"
)
FEATURES_LAKE_ROWS: Final = _counter("features_lake_rows", "Rows in committed versions.", "table")
FEATURES_LAKE_SKIPPED: Final = _counter(
    "features_lake_skipped_records", "Records that cannot be decoded, not in the lake.", "table"
)
FEATURES_LAKE_FLUSH_SECONDS: Final = _histogram(
    "features_lake_flush_seconds", "One Delta commit.", LATENCY_S, "table"
)
