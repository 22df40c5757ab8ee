"""Settings of the features service."""

from __future__ import annotations

from pydantic import Field

from rankstream.adapters.settings import ServiceSettings
from rankstream.contracts.columns import TimeLimits
from rankstream.features.expiry import STATE_TTL_MS
from rankstream.stream.partition import FoldSettings

PREFIX = "FEATURES_"


class FeaturesSettings(ServiceSettings):
    """Variables FEATURES_*. Times are milliseconds or seconds, as their names say."""

    port: int = Field(default=8002, ge=0, le=65_535)
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", pattern=r"^redis://[^/]+(/\d*)?$")
    redis_timeout_s: float = Field(default=10.0, gt=0, le=600)
    snapshots: str = Field(default=".run/state/snapshots", min_length=1)
    snapshot_every_s: float = Field(default=60.0, gt=0, le=86_400)
    snapshot_every_records: int = Field(default=20_000, ge=1)
    # Folder of the lake; empty: this worker writes none, and all of its group must be so.
    lake: str = Field(default=".run/state/lake")
    lake_flush_s: float = Field(default=10.0, gt=0, le=3_600)
    lake_flush_bytes: int = Field(default=8_000_000, ge=1, le=1_000_000_000)

    # What decides results. A worker started with others refuses its snapshots and replays the log.
    lateness_ms: int = Field(default=600_000, ge=0)
    click_window_ms: int = Field(default=1_800_000, ge=0)
    conversion_window_ms: int = Field(default=86_400_000, ge=0)
    session_gap_ms: int = Field(default=1_800_000, gt=0)
    dedupe_ms: int = Field(default=600_000, ge=0)
    # A user, or an item that topic `items` does not describe, is forgotten after so long without an
    # event: from the state and from Redis. Longer than any window.
    state_ttl_ms: int = Field(default=STATE_TTL_MS, ge=60_000)
    clock_skew_ms_max: int = Field(default=60_000, ge=0)
    event_age_ms_max: int = Field(default=400 * 86_400_000, gt=0)

    # Partitions fold and commit what has come at beats so far apart, those of stage 2 in between.
    linger_ms: int = Field(default=50, ge=0, le=1_000)
    batch_records: int = Field(default=200, ge=1, le=10_000)
    inbox_records: int = Field(default=400, ge=1, le=100_000)
    # A partition without records for so long has its watermark moved by a tick.
    idle_ms: int = Field(default=2_000, ge=100, le=600_000)
    # A worker not heard of for so long loses its partitions; brokers allow 6 s and more by default.
    session_timeout_s: float = Field(default=10.0, ge=1, le=300)
    dead_share_max: float = Field(default=0.5, gt=0, le=1)
    dead_window_events: int = Field(default=10_000, ge=1)

    def fold(self) -> FoldSettings:
        """The settings that the fold takes."""
        return FoldSettings(
            lateness_ms=self.lateness_ms,
            click_window_ms=self.click_window_ms,
            conversion_window_ms=self.conversion_window_ms,
            session_gap_ms=self.session_gap_ms,
            dedupe_ms=self.dedupe_ms,
            state_ttl_ms=self.state_ttl_ms,
            limits=TimeLimits(
                ahead_ms_max=self.clock_skew_ms_max, behind_ms_max=self.event_age_ms_max
            ),
        )
