"""Follow compacted topics: what is in the log now, then every change, through outages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import structlog

from rankstream import metrics
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.errors import RankstreamError, Unavailable

RECORDS_PER_POLL: Final = 2_000
POLL_S: Final = 0.2
RETRY_S: Final = 1.0


def locate(uri: str, artifacts: str) -> str:
    """The folder of a ModelPointer: a relative uri is below `artifacts`.

    >>> locate("ranker/m1", "/srv"), locate("/a/m1", "/srv"), locate("file:///a/m1", "/srv")
    ('/srv/ranker/m1', '/a/m1', 'file:///a/m1')
    """
    return uri if "://" in uri else str(Path(artifacts) / uri)


class Reader(Protocol):
    """What is used of a LogReader."""

    @property
    def caught_up(self) -> bool: ...

    def positions(self) -> dict[tuple[str, int], int]: ...

    async def poll(self, max_records: int, timeout_s: float) -> list[Record]: ...

    async def close(self) -> None: ...


async def follow(
    open_reader: Callable[[dict[tuple[str, int], int]], Reader],
    fold: Callable[[Record], Awaitable[None]],
    *,
    metrics_of: Metrics,
    on_caught_up: Callable[[], None],
) -> None:
    """Fold every record until cancelled; a record that is refused by name is counted and skipped.

    Args:
        open_reader: a reader from these offsets, or from the start where none is given.
        fold: takes one record; a value of None is a tombstone.
        on_caught_up: called once all that was in the log at the start is folded.

    While the log cannot be read, what was folded stays in force and the reading is tried again.
    """
    log = structlog.get_logger()
    refused = metrics_of.counter(metrics.FOLLOW_REFUSED)
    restarts = metrics_of.counter(metrics.FOLLOW_RESTARTS)
    positions: dict[tuple[str, int], int] = {}
    caught_up = False
    while True:
        reader = open_reader(positions)
        try:
            while True:
                for record in await reader.poll(RECORDS_PER_POLL, POLL_S):
                    try:
                        await fold(record)
                    except RankstreamError as error:
                        refused.labels(record.topic, error.code).inc()
                        log.error("record_refused", topic=record.topic, reason=str(error))
                positions = reader.positions()
                if reader.caught_up and not caught_up:
                    caught_up = True
                    on_caught_up()
        except Unavailable as error:
            restarts.inc()
            log.warning("log_unavailable", reason=str(error))
        finally:
            await reader.close()
        await asyncio.sleep(RETRY_S)
