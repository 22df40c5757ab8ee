"""Settings of the ingest service."""

from __future__ import annotations

from pydantic import Field

from rankstream.adapters.settings import PublicSettings
from rankstream.contracts.batches import EVENTS_PER_BATCH_MAX

PREFIX = "INGEST_"


class IngestSettings(PublicSettings):
    """Variables INGEST_*."""

    port: int = Field(default=8001, ge=0, le=65_535)
    admin_port: int = Field(default=8101, ge=0, le=65_535)
    clock_skew_ms_max: int = Field(default=60_000, ge=0)
    event_age_ms_max: int = Field(default=400 * 86_400_000, gt=0)
    body_bytes_max: int = Field(default=5_000_000, gt=0)
    # At least one full request, or that request could never be taken.
    queue_events_max: int = Field(default=50_000, ge=EVENTS_PER_BATCH_MAX)
    batch_events_max: int = Field(default=500, gt=0, le=EVENTS_PER_BATCH_MAX)
    batch_wait_ms: int = Field(default=20, ge=0, le=10_000)
    delivery_timeout_s: float = Field(default=5.0, gt=0, le=300)
    # A larger share of refused events stops the reading of `events.json`; HTTP goes on.
    dead_share_max: float = Field(default=0.5, gt=0, le=1)
    # The share is taken over this many events.
    dead_window_events: int = Field(default=10_000, ge=1)
