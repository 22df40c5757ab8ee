"""What all partitions of this worker use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from rankstream.ports import EventLog
from services.features.dead_share import DeadShare
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from services.features.snapshots import SnapshotFolder

# Partitions that read their snapshots at the same time. All at once would all be ready at the end;
# this way the first is at work when an eighth of the state is read.
OPENINGS: Final = 2


class Flow(Protocol):
    """Whether Faust delivers a partition's records."""

    def pause(self, topic: str, partition: int) -> None:
        """Deliver no more."""

    async def resume(self, topic: str, partition: int, offset: int) -> None:
        """Deliver from `offset` on."""


@dataclass(frozen=True)
class Shared:
    """What all partitions of this worker use."""

    settings: FeaturesSettings
    producer: EventLog
    flow: Flow
    snapshots: SnapshotFolder
    measures: Measures
    dead_share: DeadShare
    now_ms: Callable[[], int]
    openings: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OPENINGS))
