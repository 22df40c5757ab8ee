"""Settings of the experiments service."""

from __future__ import annotations

from pydantic import Field

from rankstream.adapters.settings import ServiceSettings

PREFIX = "EXPERIMENTS_"


class ExperimentsSettings(ServiceSettings):
    """Variables EXPERIMENTS_*."""

    port: int = Field(default=8005, ge=0, le=65_535)
    # Labels whose unit was not exposed wait this long, in event time, for its exposure.
    exposure_wait_ms: int = Field(default=3_600_000, gt=0)
    records_per_poll: int = Field(default=2_000, gt=0, le=100_000)
