"""The lake's worker on a real Kafka: it goes on where its table says, whoever it was before."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable
from prometheus_client import CollectorRegistry

from rankstream import topics
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.errors import DependencyUnavailable, Fenced
from services.features import lake, lake_process
from services.features.lake import LakeWorker
from services.features.lake_process import LakeProcess
from services.features.lake_rows import TABLES
from services.features.measures import Measures
from services.features.settings import FeaturesSettings
from tests.services.features.label_log import a_label_log

pytestmark = pytest.mark.integration

ANSWER_S = 60.0
POLL_S = 0.05
ROOT = Path(__file__).resolve().parents[3]
PARENT = """
import asyncio, tempfile, time
from services.features.lake_process import LakeProcess
process = LakeProcess(tempfile.mkdtemp())
asyncio.run(process.call("labels", "open", (0, 1)))
print(process.pid, flush=True)
time.sleep(600)
"""


def send(bootstrap: str, records: list[Record]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
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


@pytest.fixture
def process(tmp_path: Path) -> Iterator[LakeProcess]:
    started = LakeProcess(str(tmp_path))
    yield started
    asyncio.run(started.close())


def test_every_table_of_a_topic_that_is_kept_can_be_written() -> None:
    assert [table.topic for table in TABLES] == list(lake.TABLES)


def test_a_process_that_was_killed_starts_again_where_the_table_says(
    process: LakeProcess, tmp_path: Path
) -> None:
    records = a_label_log(4, records=20).records[:2]
    before = {record.partition: record.offset for record in records[:1]}
    after = {partition: offset + 1 for partition, offset in before.items()}

    async def killed() -> None:
        assert await process.call(topics.LABELS.name, "open", (0, 1)) == {0: 0, 1: 0}
        await process.call(topics.LABELS.name, "append", records[:1], before, after)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(DependencyUnavailable, match="ended with code -9"):
            await process.call(topics.LABELS.name, "rows")
        assert await process.call(topics.LABELS.name, "open", (0, 1)) == {0: 0, 1: 0} | after
        with pytest.raises(Fenced, match="expected 7"):
            await process.call(topics.LABELS.name, "append", records[:1], {0: 7}, {0: 8})

    asyncio.run(killed())


def test_a_child_that_has_answered_enough_is_replaced_and_nothing_is_missed(
    process: LakeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_process, "CALLS_MAX", 2)
    records = [record for record in a_label_log(4, records=20).records if record.partition == 0]

    async def written() -> set[int | None]:
        children = set()
        await process.call(topics.LABELS.name, "open", (0, 1))
        for place, record in enumerate(records[:5]):
            at = records[place - 1].offset + 1 if place else 0
            after = {0: record.offset + 1}
            await process.call(topics.LABELS.name, "append", [record], {0: at}, after)
            children.add(process.pid)
        return children

    assert len(asyncio.run(written())) == 3
    table = DeltaTable(str(tmp_path / "labels"))
    assert table.transaction_version("lake:labels:0") == records[4].offset + 1


def test_the_process_ends_with_its_parent() -> None:
    """kill -9 of a worker leaves nothing behind that writes."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        child.wait(ANSWER_S)


def test_labels_end_as_the_log_says_over_two_workers_and_records_sent_twice(
    kafka_topics: str, tmp_path: Path, process: LakeProcess
) -> None:
    wanted = a_label_log(4, records=60)
    settings = FeaturesSettings(
        kafka_url=kafka_topics, lake=str(tmp_path), lake_flush_bytes=200, lake_flush_s=0.2
    )

    def a_worker() -> LakeWorker:
        measures = Measures(Metrics(CollectorRegistry()))
        return LakeWorker(topics.LABELS.name, (0, 1), process, settings, measures)

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
