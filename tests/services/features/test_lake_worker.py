"""The lake's worker on a real Kafka: it goes on where its table says, whoever it was before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from services.features.lake import LakeWorker
from services.features.lake_rows import TABLES
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from tests.services.features.label_log import a_label_log

pytestmark = pytest.mark.integration

LABELS = next(table for table in TABLES if table.topic == "labels")
ANSWER_S = 60.0
POLL_S = 0.05


def send(bootstrap: str, records: list[Record]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for record in records:
        producer.produce(topics.LABELS.name, value=record.value, partition=record.partition)
    assert producer.flush(ANSWER_S) == 0


async def work(worker: LakeWorker, live: list[Record], bootstrap: str, total: int) -> None:
    """Run until caught up, append what comes live, stop once the table has all `total` records."""
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(ANSWER_S):
        while not worker.caught_up and not running.done():
            await asyncio.sleep(POLL_S)
        send(bootstrap, live)
        while sum(worker.committed.values()) < total and not running.done():
            await asyncio.sleep(POLL_S)
    worker.stop()
    await running


def test_labels_end_as_the_log_says_over_two_workers_and_records_sent_twice(
    kafka_topics: str, tmp_path: Path
) -> None:
    wanted = a_label_log(4, records=60)
    settings = FeaturesSettings(
        kafka_url=kafka_topics, lake=str(tmp_path), lake_flush_bytes=200, lake_flush_s=0.2
    )

    def a_worker() -> LakeWorker:
        return LakeWorker(LABELS, (0, 1), settings, Measures(Metrics(CollectorRegistry())))

    send(kafka_topics, wanted.records[:50])
    asyncio.run(work(a_worker(), [], kafka_topics, 50))
    second = a_worker()

    # A worker that is behind its own group sends some again.
    asyncio.run(work(second, wanted.records[40:], kafka_topics, 70))

    table = DeltaTable(str(tmp_path / "labels"))
    rows = table.to_pyarrow_table()
    names = ("partition", "user_id", "item_id", "impression_time_ms", "status", "clicked")
    found = zip(*(rows[name].to_pylist() for name in (*names, "source_offset")), strict=True)
    assert sorted(found) == sorted(wanted.rows)
    assert second.rows == len(wanted.rows)
    assert table.version() >= 2
