"""Settings of the ranker."""

from __future__ import annotations

from pydantic import Field

from rankstream.adapters.settings import PublicSettings

PREFIX = "RANKER_"


class RankerSettings(PublicSettings):
    """Variables RANKER_*. Times are milliseconds or seconds, as their names say."""

    port: int = Field(default=8004, ge=0, le=65_535)
    grpc_port: int = Field(default=9004, ge=0, le=65_535)
    admin_port: int = Field(default=8104, ge=0, le=65_535)
    admin_grpc_port: int = Field(default=9104, ge=0, le=65_535)
    retrieval_url: str = Field(default="127.0.0.1:9003", pattern=r"^[^,\s]+(,[^,\s]+)*$")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^redis://[^/]+(/\d*)?$")
    # Pointers with a relative uri are folders below this one.
    artifacts: str = Field(default=".run/state/artifacts", min_length=1)
    n_default: int = Field(default=10, ge=1)
    n_max: int = Field(default=100, ge=1, le=1_000)
    items_max: int = Field(default=1_000, ge=1, le=10_000)
    candidates: int = Field(default=500, ge=1, le=10_000)
    # Of them, those that a model's linear stand-in leaves to be ranked, never fewer than are asked
    # for; 0: all.
    prerank_keep: int = Field(default=0, ge=0, le=10_000)
    features_timeout_ms: float = Field(default=50.0, gt=0, le=60_000)
    # Reads of Redis that are late in a row, before only one at a time asks it; how often that does.
    features_late_max: int = Field(default=5, ge=1, le=1_000)
    features_probe_ms: float = Field(default=250.0, gt=0, le=600_000)
    # A row, users' aside, is never older when it is used; 0: always read.
    rows_age_ms: float = Field(default=250.0, ge=0, le=5_000)
    # Rows kept for that, of items, categories and contexts each, about 0.8 kB each; more than the
    # requests in flight can ask for together.
    rows_kept: int = Field(default=50_000, ge=20_000, le=10_000_000)
    # Hold the index in this process and ask no retrieval service: a hop less, its memory more.
    retrieval_in_process: bool = False
    retrieval_sources: str = Field(default="")
    retrieval_timeout_ms: float = Field(default=80.0, gt=0, le=60_000)
    # Calls of retrieval that are late in a row, before only one call at a time asks it.
    retrieval_late_max: int = Field(default=5, ge=1, le=1_000)
    # How often that one call asks.
    retrieval_probe_ms: float = Field(default=250.0, gt=0, le=600_000)
    # How long a request may wait to begin while the core is busy, before it is refused.
    queue_wait_ms: float = Field(default=200.0, gt=0, le=60_000)
    inflight_max: int = Field(default=64, ge=1, le=100_000)
    # Records of answers that wait for Kafka's ack; above it requests are refused, because an
    # answer without its record would bias every experiment.
    log_queue_max: int = Field(default=2_000, ge=2, le=1_000_000)
    log_delivery_timeout_s: float = Field(default=120.0, gt=0, le=3_600)
    answer_ttl_s: int = Field(default=900, ge=1, le=604_800)
    explore_epsilon: float = Field(default=0.05, ge=0, le=1)
    policy_salt: str = Field(default="policy-1", min_length=1, pattern=r"^[^\x1f]*$")
    # JSON object, name -> rankstream.contracts.policy.Policy; "default" replaces epsilon-greedy.
    policies: str = Field(default="")
    # What a policy other than epsilon-greedy read of all candidates goes into the slate's record.
    log_candidates: bool = Field(default=True)
    # Alias of a model that scores answers behind them, into topic shadow; "": none.
    shadow_alias: str = Field(default="")
    shadow_percent: float = Field(default=100.0, ge=0, le=100)
    # Answers that wait for the shadow, or for the ack of its record; about 0.2 MB each.
    shadow_queue_max: int = Field(default=64, ge=1, le=10_000)
    # Alias of a model that answers some requests, and is taken off if it fails too often; "": none.
    canary_alias: str = Field(default="")
    canary_percent: float = Field(default=5.0, ge=0, le=50)
    canary_latency_ms: float = Field(default=20.0, gt=0, le=60_000)
    # Chance that a canary that fails no more often than the champion is ever taken off.
    canary_alpha: float = Field(default=0.001, gt=0, lt=0.5)
    models_kept: int = Field(default=8, ge=1, le=100)
