"""Settings of the experiments service."""

from __future__ import annotations

from pydantic import Field

from rankstream.adapters.settings import PublicSettings

PREFIX = "EXPERIMENTS_"


class ExperimentsSettings(PublicSettings):
    """Variables EXPERIMENTS_*."""

    port: int = Field(default=8005, ge=0, le=65_535)
    admin_port: int = Field(default=8105, ge=0, le=65_535)
    # Labels whose unit was not exposed wait this long, in event time, for its exposure.
    exposure_wait_ms: int = Field(default=3_600_000, gt=0)
    # How often the metrics of /metrics are computed from the scorecards.
    measure_every_s: float = Field(default=10.0, gt=0, le=3600)
