"""Settings of the retrieval service."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from rankstream.adapters.settings import ServiceSettings
from rankstream.contracts.shard import SHARDS_MAX

PREFIX = "RETRIEVAL_"


class RetrievalSettings(ServiceSettings):
    """Variables RETRIEVAL_*. `port` is for health and metrics, `grpc_port` for requests."""

    port: int = Field(default=8003, ge=0, le=65_535)
    grpc_port: int = Field(default=9003, ge=0, le=65_535)
    # Pointers with a relative uri are folders below this one.
    artifacts: str = Field(default=".run/state/artifacts", min_length=1)
    alias: str = Field(default="champion", min_length=1)
    k_max: int = Field(default=2_000, ge=1, le=100_000)
    history_max: int = Field(default=1_000, ge=1, le=100_000)
    exclude_max: int = Field(default=10_000, ge=0, le=1_000_000)
    fresh_max: int = Field(default=10_000, ge=1, le=100_000)
    # JSON file of a rankstream.contracts.sources.Sources; "": those of the artefact, as tuned.
    sources: str = Field(default="")
    # Which part of the items it holds, 0 to shards - 1; all of them if there is one.
    shard: int = Field(default=0, ge=0, lt=SHARDS_MAX)
    shards: int = Field(default=1, ge=1, le=SHARDS_MAX, validate_default=True)

    @field_validator("shards")
    @classmethod
    def _holds_the_shard(cls, shards: int, info: ValidationInfo) -> int:
        shard = info.data.get("shard", 0)
        if shard >= shards:
            raise ValueError(f"{PREFIX}SHARD is {shard} (limit 0..{shards - 1})")
        return shards
