"""Tell the services: ModelPointer records of topic `models`."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.promote.ledger import Promotion
from rankstream import topics
from rankstream.adapters.kafka import EventProducer
from rankstream.pb import events_pb2 as pb


async def publish(promotions: Sequence[Promotion], producer: EventProducer) -> None:
    """Append a pointer per promotion; returns when the cluster has them all.

    Raises: DependencyUnavailable, QueueFull: some may be published; publish them again.
    """
    for promotion in promotions:
        pointer = pb.ModelPointer(
            role=promotion.role,
            alias=promotion.alias,
            model_id=promotion.model_id,
            uri=promotion.uri,
            sha256=promotion.sha256,
            updated_ms=promotion.time_ms,
        )
        key = f"{promotion.role}/{promotion.alias}".encode()
        await producer.send(topics.MODELS.name, pointer.SerializeToString(), key=key)
