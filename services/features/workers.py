"""Which partitions this process works on: started when Faust assigns them, stopped when it revokes.

A worker that fails fails the process: its partitions go to another one, and its own state is what
Redis, the lake and the log say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final, Protocol

import structlog

from rankstream import topics
from rankstream.adapters.health import Health
from rankstream.adapters.partitions import Partitions
from rankstream.contracts.record import Record
from rankstream.errors import Conflict
from services.features.lake import TABLES, LakeWorker
from services.features.lake_process import LakeProcess
from services.features.shared import Shared
from services.features.stages import ItemStage, Stage, Totals, UserStage, summed
from services.features.worker import PartitionWorker

Source = tuple[str, int]  # topic, partition

ASSIGNED: Final = "assigned"
CAUGHT_UP: Final = "caught_up"
FATES: Final = ("folded", "duplicates", "refused", "late", "unmatched")


class Worker(Protocol):
    """What the assignment does with a worker."""

    caught_up: bool

    def stop(self) -> None: ...

    async def run(self) -> None: ...


class Workers:
    """The workers of the partitions that are ours now."""

    def __init__(self, shared: Shared, health: Health) -> None:
        self._shared = shared
        self._health = health
        self._users: dict[int, PartitionWorker] = {}
        self._items: dict[int, PartitionWorker] = {}
        self._lake: dict[str, LakeWorker] = {}
        self._lake_process = LakeProcess(shared.settings.lake)
        self._routes: dict[Source, PartitionWorker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Of the log, as the cluster has it.
        self.partitions = Partitions(topics.EVENTS.partitions, topics.FEATURE_UPDATES.partitions)
        self._log = structlog.get_logger()

    async def assign(self, sources: Iterable[Source]) -> None:
        """Work on exactly these sources from now on."""
        await self.release()
        owned = sorted(sources)
        if self._are_new(owned):
            return
        self._log.info("partitions_assigned", sources=[f"{t}[{p}]" for t, p in owned])
        settings = self._shared.settings
        counted = {topic: [p for t, p in owned if t == topic] for topic in {t for t, _ in owned}}
        for partition in counted.get(topics.EVENTS.name, ()):
            self._users[partition] = self._worker(partition, self._user_stage(partition), True)
        for partition in counted.get(topics.FEATURE_UPDATES.name, ()):
            # Both topics of stage 2 have as many partitions, which Faust assigns together.
            assert (topics.ITEMS.name, partition) in owned, owned
            self._items[partition] = self._worker(
                partition, partial(ItemStage, partition, settings.state_ttl_ms), False
            )
        for topic in TABLES:
            if settings.lake and (partitions := counted.get(topic)):
                process, measures = self._lake_process, self._shared.measures
                self._lake[topic] = LakeWorker(topic, partitions, process, settings, measures)
        self._routes = {
            (topic, partition): self._folding(topic)[partition]
            for topic, partition in owned
            if self._folding(topic)
        }
        for source in owned:
            if source not in self._routes:
                # The lake reads its topics itself.
                self._shared.flow.pause(*source)
        for worker in self._all():
            task = asyncio.create_task(worker.run())
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if owned:
            self._health.ready(ASSIGNED)

    def _are_new(self, owned: Iterable[Source]) -> bool:
        """Whether partitions were added while this process ran; it ends then."""
        name, known = topics.EVENTS.name, self.partitions.users
        added = [partition for topic, partition in owned if topic == name and partition >= known]
        if added and not self.failed.done():
            self.failed.set_exception(
                Conflict(
                    f"conflict: assigned partitions {added} of {name}, which had {known} when this"
                    " worker started. Stopped; nothing of them was folded. Partitions were added to"
                    " the topic: see docs/runbook.md#more-partitions."
                )
            )
        return bool(added)

    def _user_stage(self, partition: int) -> Callable[[], Stage]:
        fold = replace(self._shared.settings.fold(), user_partitions=self.partitions.users)
        # Targets of updates are partitions of `feature-updates`.
        count = self.partitions.items
        return lambda: UserStage(partition, count, fold)

    def _worker(
        self, partition: int, new_stage: Callable[[], Stage], ticks: bool
    ) -> PartitionWorker:
        return PartitionWorker(partition, new_stage, self._shared, ticks=ticks)

    def _folding(self, topic: str) -> dict[int, PartitionWorker]:
        """Who folds the partitions of a topic."""
        if topic == topics.EVENTS.name:
            return self._users
        return self._items if topic in ItemStage.topics else {}

    @property
    def owned(self) -> bool:
        """Whether any partition is ours."""
        return bool(self._routes)

    async def release(self) -> None:
        """Finish what is in hand: batches committed, lake flushed, snapshots written."""
        for worker in self._all():
            worker.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._users, self._items, self._lake, self._routes = {}, {}, {}, {}
        self._health.not_ready(ASSIGNED, "no partitions are assigned")

    async def close(self) -> None:
        """End what the workers share, once all are released."""
        await self._lake_process.close()

    def deliver(self, record: Record) -> None:
        """Give a record to the worker of its partition."""
        worker = self._routes.get((record.topic, record.partition))
        if worker is not None:
            worker.put(record)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    def measure(self, highwater: Callable[[str, int], int | None]) -> None:
        """Set the gauges that are read off the state."""
        measures = self._shared.measures
        behind = [worker for worker in self._all() if not worker.caught_up]
        if behind:
            self._health.not_ready(CAUGHT_UP, f"{len(behind)} workers read the log")
        else:
            self._health.ready(CAUGHT_UP)
        for name, workers in (("users", self._users), ("items", self._items)):
            totals = self._totals(workers)
            for fate in FATES:
                measures.events.labels(name, fate).set(getattr(totals, fate))
            for part, size in _summed_sizes(workers.values()).items():
                measures.state.labels(name, part).set(size)
        for (topic, partition), lag in self._lags(highwater).items():
            measures.lag.labels(topic, partition).set(lag)
        now_ms = self._shared.now_ms()
        for partition, worker in self._users.items():
            if watermark_ms := worker.stage.watermark_ms():
                delay_s = (now_ms - watermark_ms) / 1000
                measures.watermark_delay.labels(partition).set(delay_s)

    def _all(self) -> tuple[Worker, ...]:
        return (*self._users.values(), *self._items.values(), *self._lake.values())

    def _totals(self, workers: dict[int, PartitionWorker]) -> Totals:
        return summed({partition: worker.stage.totals for partition, worker in workers.items()})

    def _lags(self, highwater: Callable[[str, int], int | None]) -> dict[Source, int]:
        """Records of each source that are not committed yet, as far as the end is known."""
        lags = {}
        for worker in (*self._users.values(), *self._items.values()):
            stage = worker.stage
            for topic, following in zip(stage.topics, stage.next_offsets(), strict=True):
                end = highwater(topic, worker.partition)
                if end is not None:
                    lags[topic, worker.partition] = max(0, end - following)
        return lags

    def counts(self, highwater: Callable[[str, int], int | None]) -> dict[str, Any]:
        """What GET /v1/counts answers: since the start of the log, up to what is committed."""
        totals = self._totals(self._users)
        lags = self._lags(highwater)
        sizes = _summed_sizes(self._users.values())
        return {
            **asdict(totals),
            "open_labels": sizes.get("open_labels", 0),
            "open_sessions": sizes.get("open_sessions", 0),
            "lake_events": self._lake_rows(topics.EVENTS.name),
            "lake": {topic: worker.rows for topic, worker in self._lake.items()},
            "lake_lag": {topic: worker.lag() for topic, worker in self._lake.items()},
            "events_lag": _lag(lags, topics.EVENTS.name),
            "updates_lag": _lag(lags, topics.FEATURE_UPDATES.name),
            "items_lag": _lag(lags, topics.ITEMS.name),
            "caught_up": bool(self._tasks) and all(worker.caught_up for worker in self._all()),
            "partitions": {
                str(partition): {
                    **asdict(worker.stage.totals),
                    **worker.stage.sizes(),
                    "next_offset": worker.stage.next_offsets()[0],
                    "watermark_ms": worker.stage.watermark_ms(),
                }
                for partition, worker in sorted(self._users.items())
            },
            "items": {
                str(partition): {
                    **asdict(worker.stage.totals),
                    **worker.stage.sizes(),
                    "next_offset": worker.stage.next_offsets()[0],
                    "next_items_offset": worker.stage.next_offsets()[1],
                }
                for partition, worker in sorted(self._items.items())
            },
        }

    def _lake_rows(self, topic: str) -> int:
        return self._lake[topic].rows if topic in self._lake else 0


def _lag(lags: dict[Source, int], topic: str) -> int:
    return sum(lag for (name, _), lag in lags.items() if name == topic)


def _summed_sizes(workers: Iterable[PartitionWorker]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for worker in workers:
        for part, size in worker.stage.sizes().items():
            sizes[part] = sizes.get(part, 0) + size
    return sizes
