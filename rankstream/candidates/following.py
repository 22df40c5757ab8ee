"""Keep a Retrieval up to date with the log, for as long as its process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from rankstream import topics
from rankstream.adapters.follow import Reader, follow
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.retrieval import ITEMS, Retrieval

RANKED_EVERY_S: Final = 1.0


def followers(
    retrieval: Retrieval, kafka_url: str, *, now_ms: int, health: Health, metrics_of: Metrics
) -> list[Coroutine[Any, Any, None]]:
    """Which artefact `models` points to, what `items` are like, and what is clicked, from a window
    before `now_ms` on, if trending items are asked for; none of them ever ends.
    """

    def reader(
        topic: topics.Topic, positions: dict[tuple[str, int], int], since_ms: int | None = None
    ) -> Reader:
        names = [topic.name]
        return LogReader(
            kafka_url, names, offsets=positions, since_ms=since_ms, client_id="retrieval"
        )

    async def items() -> None:
        # What the index lacks is kept by name: with an index first, that is little.
        await retrieval.indexed.wait()
        await follow(
            lambda positions: reader(topics.ITEMS, positions),
            retrieval.follow_item,
            metrics_of=metrics_of,
            on_caught_up=lambda: health.ready(ITEMS),
        )

    # Apart, so that a long load of an index holds up no withdrawal.
    models = follow(
        lambda positions: reader(topics.MODELS, positions),
        retrieval.follow_model,
        metrics_of=metrics_of,
        on_caught_up=lambda: None,
    )
    trending = retrieval.trending
    if trending is None:
        return [models, items()]
    since_ms = now_ms - trending.window_ms
    clicks = follow(
        lambda positions: reader(topics.LABELS, positions, since_ms),
        retrieval.follow_label,
        metrics_of=metrics_of,
        on_caught_up=lambda: None,
    )

    async def ranked() -> None:
        while True:
            await asyncio.sleep(RANKED_EVERY_S)
            if trending.changed:
                retrieval.rank_trending()

    return [models, items(), clicks, ranked()]
