"""Keep a Retrieval up to date with the log, for as long as its process runs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from rankstream import topics
from rankstream.adapters.follow import Reader, follow
from rankstream.adapters.health import Health
from rankstream.adapters.kafka import LogReader
from rankstream.adapters.metrics import Metrics
from rankstream.candidates.retrieval import ITEMS, Retrieval


def followers(
    retrieval: Retrieval, kafka_url: str, *, health: Health, metrics_of: Metrics
) -> list[Coroutine[Any, Any, None]]:
    """Which artefact `models` points to, and what `items` are like; neither ever ends."""

    def reader(topic: topics.Topic, positions: dict[tuple[str, int], int]) -> Reader:
        return LogReader(kafka_url, [topic.name], offsets=positions, client_id="retrieval")

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
    return [models, items()]
