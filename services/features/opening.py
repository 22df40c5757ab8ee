"""Taking a partition over: its state as of what Redis and the journal say was done.

The snapshot and the log up to what is committed give the state, with nothing sent and nothing
written. Runs in the journal behind that were sent: all but the last completely, and their rows are
written again; the last may have to be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from rankstream import topics
from rankstream.adapters.log_range import PartitionLog
from rankstream.contracts.record import Record
from rankstream.errors import InvalidArtifact
from services.features.commit import Fence
from services.features.journal import read_runs
from services.features.shared import Shared
from services.features.stages import Stage

ROWS_PER_COMMIT: Final = 2_000


class Opening:
    """One take-over of one partition of one stage."""

    def __init__(
        self, new_stage: Callable[[], Stage], partition: int, fence: Fence, shared: Shared
    ) -> None:
        self._new_stage = new_stage
        self._partition = partition
        self._fence = fence
        self._shared = shared
        self._stage = new_stage()
        self._log = structlog.get_logger().bind(stage=self._stage.name, partition=partition)

    async def restore(self) -> tuple[Stage, Sequence[Record]]:
        """The state, and the records of a run that is in the journal and not committed.

        Raises:
            Fenced: others keep writing to the partition.
            Conflict: the log no longer has what is needed.
            DependencyUnavailable: Kafka or Redis does not answer.
        """
        committed = await self._fence.claim()
        loaded = await self._load()
        at = self._stage.positions()
        until = committed or (0,) * len(at)
        reason = ""
        if any(own > until[index] for index, own in enumerate(self._stage.next_offsets())):
            # Redis is older than the snapshot: it has lost commits. Write every row again; what
            # was sent up to the snapshot is in the log for good and is not sent again.
            reason, until = "redis_lost_rows", tuple(map(max, at, until))
            self._stage = self._new_stage()
        elif not loaded and any(until):
            reason = "snapshot_refused"
        await self._replay(until)
        self._stage.journal_next = until[-1]
        if reason:
            self._shared.measures.rebuilds.labels(self._stage.name, reason).inc()
            self._log.warning("partition_rebuilt", reason=reason, offsets=until)
            await commit_rows(self._fence, self._stage, meanwhile=committed)
        else:
            self._stage.forget_changes()
        run = await self._journaled() if topics.EVENTS.name in self._stage.topics else []
        return self._stage, run

    async def _load(self) -> bool:
        """Load the snapshot, if there is one; False if there was one and it cannot be used."""
        name, folder = self._stage.name, self._shared.snapshots
        snapshot = await asyncio.to_thread(folder.load, name, self._partition)
        if snapshot is None:
            return True
        try:
            self._stage.load(snapshot)
        except InvalidArtifact as error:
            self._shared.measures.snapshots.labels(name, "refused").inc()
            self._log.warning("snapshot_refused", reason=str(error))
            self._stage = self._new_stage()
            return False
        return True

    async def _replay(self, until: Sequence[int]) -> None:
        """Fold what was done before: nothing is sent, nothing written."""
        for index, topic in enumerate(self._stage.topics):
            start = self._stage.next_offsets()[index]
            if start >= until[index]:
                continue
            async with aclosing(self._source(topic).read(start, until[index])) as portions:
                async for records in portions:
                    self._shared.measures.replayed.labels(self._stage.name).inc(len(records))
                    self._stage.fold(records)
                    await asyncio.sleep(0)

    async def _journaled(self) -> list[Record]:
        """Fold the runs in the journal but the last; the records of that one."""
        stage = self._stage
        runs = await read_runs(
            self._shared.settings.kafka_url,
            self._partition,
            journal_next=stage.journal_next,
            position=stage.next_offsets()[0],
        )
        stage.journal_next = runs.journal_next
        if not runs.ends:
            return []
        self._log.info("runs_in_journal", runs=len(runs.ends), until=runs.ends[-1])
        await self._replay([end + 1 for end in runs.ends[-2:-1]] or stage.next_offsets())
        source = self._source(topics.EVENTS.name)
        last: list[Record] = []
        async with aclosing(source.read(stage.next_offsets()[0], runs.ends[-1] + 1)) as portions:
            async for records in portions:
                last += records
        return last

    def _source(self, topic: str) -> PartitionLog:
        url = self._shared.settings.kafka_url
        return PartitionLog(url, topic, self._partition, client_id="features")


async def commit_rows(fence: Fence, stage: Stage, *, meanwhile: Sequence[int] | None = None) -> int:
    """Write the changed rows; the positions go with the last of them. How many rows there were.

    `meanwhile` goes with the others when they do not fit one transaction: where Redis stood.

    Raises: Fenced, DependencyUnavailable.
    """
    rows = stage.changed_rows(ROWS_PER_COMMIT)
    following = stage.changed_rows(ROWS_PER_COMMIT) if rows else []
    written = 0
    while following:
        if meanwhile is None:
            rows += following
        else:
            await fence.commit(rows, meanwhile)
            written += len(rows)
            rows = following
        following = stage.changed_rows(ROWS_PER_COMMIT)
    await fence.commit(rows, stage.positions())
    return written + len(rows)
