"""What the features service says of itself: where events went, and how fresh features are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rankstream.metrics import FEATURES_FRESHNESS_SECONDS

TIMEOUT_S: Final = 10.0
STAGE: Final = "users"
SINCE: Final = "event"


@dataclass(frozen=True)
class Counts:
    """Events since the log's start, by fate, and what is still to do."""

    events: int
    folded: int
    duplicates: int
    refused: int
    late: int
    open_labels: int
    lake_events: int
    events_lag: int
    updates_lag: int


def counts(url: str) -> Counts:
    """GET /v1/counts of the features service at `url`."""
    answer = httpx.get(f"{url}/v1/counts", timeout=TIMEOUT_S).raise_for_status().json()
    return Counts(**{field.name: int(answer[field.name]) for field in fields(Counts)})


def freshness_seen(url: str) -> Mapping[float, float]:
    """Upper bound in seconds -> how many records were in Redis that long after their newest event,
    since the service's start.
    """
    text = httpx.get(f"{url}/metrics", timeout=TIMEOUT_S).raise_for_status().text
    return {
        float(sample.labels["le"]): sample.value
        for family in text_string_to_metric_families(text)
        if family.name == FEATURES_FRESHNESS_SECONDS.name
        for sample in family.samples
        if sample.name.endswith("_bucket")
        and sample.labels["stage"] == STAGE
        and sample.labels["since"] == SINCE
    }


def freshness_ms(before: Mapping[float, float], after: Mapping[float, float]) -> dict[str, float]:
    """p50 and p99 between two readings, by the rule of Prometheus' histogram_quantile."""
    bounds = sorted(after)
    seen = [after[bound] - before.get(bound, 0.0) for bound in bounds]
    return {name: 1000.0 * _quantile(q, bounds, seen) for name, q in (("p50", 0.5), ("p99", 0.99))}


def _quantile(q: float, bounds: list[float], cumulative: list[float]) -> float:
    if not cumulative or not cumulative[-1]:
        return float("nan")
    rank = q * cumulative[-1]
    low, below = 0.0, 0.0
    for bound, count in zip(bounds, cumulative, strict=True):
        if count >= rank:
            if bound == float("inf") or count == below:
                return low
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low
