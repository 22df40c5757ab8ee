"""Every Kafka topic: its key, partitions, retention, owner and guarantee, said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Topic:
    """One topic. `retention_ms` -1 keeps for ever; a compacted one keeps a key's last value."""

    name: str
    key: str
    owner: str
    payload: str
    partitions: int = 4
    retention_ms: int = 7 * DAY_MS
    compacted: bool = False
    # Retention and the clock-skew check go by the broker's clock, so that
    # replaying history neither deletes it nor moves a watermark.
    log_append_time: bool = True

    def config(self) -> dict[str, str]:
        """Broker configuration of this topic."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": "-1" if self.compacted else str(self.retention_ms),
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(MAX_RECORD_BYTES),
        }


MAX_RECORD_BYTES: Final = 4 * 1024 * 1024

# Partition counts of a row of co-partitioned topics must stay equal:
# events, labels, sessions (user_id); feature-updates, items (item, category, query or location).
EVENTS: Final = Topic("events", "user_id", "ingest, any producer", "EventBatch", retention_ms=-1)
EVENTS_JSON: Final = Topic(
    "events.json", "user_id", "any producer", "JSON event or array of events"
)
EVENTS_DEAD: Final = Topic(
    "events.dead", "", "ingest, features", "DeadLetter", partitions=1, retention_ms=30 * DAY_MS
)
ITEMS: Final = Topic("items", "item_id", "ingest", "Item", compacted=True)
FEATURE_UPDATES: Final = Topic(
    "feature-updates", "partition of the target", "features", "FeatureUpdates", retention_ms=-1
)
LABELS: Final = Topic(
    "labels", "partition of the source", "features", "LabelBatch", retention_ms=90 * DAY_MS
)
SESSIONS: Final = Topic("sessions", "partition of the source", "features", "Session")
SERVED: Final = Topic("served", "user_id", "ranker", "ServedSlate", retention_ms=30 * DAY_MS)
SHADOW: Final = Topic("shadow", "user_id", "ranker", "ShadowSlate")
EXPOSURES: Final = Topic("exposures", "unit", "ranker", "Exposure", retention_ms=90 * DAY_MS)
EXPERIMENTS: Final = Topic(
    "experiments",
    "experiment_id",
    "experiments",
    "ExperimentDefinition",
    partitions=1,
    compacted=True,
)
MODELS: Final = Topic(
    "models", "role/alias", "pipelines", "ModelPointer", partitions=1, compacted=True
)

ALL: Final[tuple[Topic, ...]] = (
    EVENTS,
    EVENTS_JSON,
    EVENTS_DEAD,
    ITEMS,
    FEATURE_UPDATES,
    LABELS,
    SESSIONS,
    SERVED,
    SHADOW,
    EXPOSURES,
    EXPERIMENTS,
    MODELS,
)
