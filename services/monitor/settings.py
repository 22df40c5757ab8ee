"""Settings of the monitor."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from rankstream.adapters.settings import ServiceSettings

PREFIX = "MONITOR_"


class MonitorSettings(ServiceSettings):
    """Variables MONITOR_*."""

    port: int = Field(default=8006, ge=0, le=65_535)
    # Root of the artefacts, <root>/<role>/<model_id>: training histograms are read from here.
    artifacts: Path = Path(".run/state/artifacts")
    # Comma-separated consumer groups whose lag is reported.
    groups: str = "features,ingest-json"
    records_per_poll: int = Field(default=1_000, gt=0, le=100_000)
    report_every_s: float = Field(default=5.0, gt=0, le=3600)

    # All checks look at this much of the log's time, in this many panes.
    window_ms: int = Field(default=30 * 60_000, gt=0)
    panes: int = Field(default=60, gt=0, le=1_000)
    # Slates wait this long for labels, and a restart reads this much of the log again.
    join_window_ms: int = Field(default=60 * 60_000, gt=0)
    slates_max: int = Field(default=200_000, gt=0)
    early_labels_max: int = Field(default=100_000, gt=0)
    models_max: int = Field(default=16, gt=0)
    # Rows that stand in for training histograms where a model has none.
    first_window_rows: int = Field(default=2_000, gt=0, le=100_000)

    observations_min: int = Field(default=200, gt=0)
    expected_clicks_min: float = Field(default=50.0, gt=0)
    drift_alpha: float = Field(default=0.001, gt=0, lt=1)
    psi_max: float = Field(default=0.2, gt=0)
    observed_expected_tolerance: float = Field(default=0.2, gt=0, lt=1)
    observed_expected_z_max: float = Field(default=4.0, gt=0)
    ece_max: float = Field(default=0.05, gt=0, lt=1)
    degraded_max: float = Field(default=0.01, ge=0, lt=1)
    served_delay_ms_p99_max: float = Field(default=2_000.0, gt=0)
    label_delay_ms_p99_max: float = Field(default=10_000.0, gt=0)
    group_lag_records_max: int = Field(default=10_000, ge=0)

    @field_validator("groups")
    @classmethod
    def _has_groups(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not all(names):
            raise ValueError("give names separated by commas, with nothing empty between them")
        return ",".join(names)

    @property
    def group_names(self) -> tuple[str, ...]:
        return tuple(self.groups.split(","))
