"""The monitor as a process on a real broker: what it reads, reports and survives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from rankstream.pb import events_pb2 as pb

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
SLATES = 400
READY_TIMEOUT_S = 30.0


@pytest.fixture
def monitor(kafka_topics: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running monitor, and its address."""
    produce(kafka_topics)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "MONITOR_PORT": str(port),
        "MONITOR_KAFKA_URL": kafka_topics,
        "MONITOR_ARTIFACTS": str(tmp_path),
        "MONITOR_REPORT_EVERY_S": "0.2",
    }
    process = subprocess.Popen([sys.executable, "-m", "services.monitor"], cwd=ROOT, env=environ)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def produce(bootstrap: str) -> None:
    """Slates and their labels of the last two minutes; a group that is five records behind."""
    rng = np.random.default_rng(1)
    now_ms = time.time_ns() // 1_000_000
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number in range(SLATES):
        pctr = rng.beta(2, 10, size=5)
        slate = pb.ServedSlate(
            request_id=f"r{number}",
            user_id=f"u{number}",
            served_time_ms=now_ms - 120_000 + 200 * number,
            item_id=[f"i{slot}" for slot in range(5)],
            pctr=pctr.tolist(),
            features=rng.normal(size=(5, 3)).astype("<f4").tobytes(),
            model_id="m1",
            variant="control",
        )
        labels = pb.LabelBatch(
            source_partition=0,
            first_offset=number,
            source_offset=number,
            strings=["", f"r{number}", *slate.item_id],
            request_id=[1] * 5,
            item_id=[2, 3, 4, 5, 6],
            impression_time_ms=[slate.served_time_ms + 100] * 5,
            old_status=[pb.LABEL_ABSENT] * 5,
            new_status=[pb.LABEL_PROVISIONAL] * 5,
            old_clicked=[0] * 5,
            new_clicked=(rng.random(5) < pctr).astype(int).tolist(),
        )
        producer.produce("served", slate.SerializeToString(), slate.user_id)
        # Twice: as a writer does that was killed before it had committed.
        for _ in range(2):
            producer.produce("labels", labels.SerializeToString(), partition=0)
    producer.produce("served", b"\xff\xff", b"k")
    assert producer.flush(10) == 0
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "features"})
    group.commit(offsets=[TopicPartition("labels", 0, 2 * SLATES - 5)], asynchronous=False)
    group.close()


def wait_for(address: str, path: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    """The first 200 of a route."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        assert process.poll() is None, "the monitor has stopped"
        try:
            answer = httpx.get(address + path)
        except httpx.ConnectError:
            answer = httpx.Response(503)
        if answer.status_code == 200:
            return answer
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def test_it_reads_reports_and_stops_when_it_is_told(
    monitor: tuple[subprocess.Popen[bytes], str],
) -> None:
    process, address = monitor
    wait_for(address, "/readyz", process)
    deadline = time.monotonic() + READY_TIMEOUT_S
    report = wait_for(address, "/v1/report", process).json()
    while report["labels"]["joined"] < 5 * SLATES and time.monotonic() < deadline:
        time.sleep(0.05)
        report = wait_for(address, "/v1/report", process).json()

    metrics = httpx.get(f"{address}/metrics").text
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=15)

    assert code == 0
    assert report["labels"]["joined"] == 5 * SLATES
    assert report["labels"]["unmatched"] == 0
    assert report["skipped"]["labels_seen_before"] == SLATES
    assert report["skipped"]["invalid_batch"] == 1
    (group,) = report["calibration"]
    assert group["impressions"] == 5 * SLATES
    assert 0.75 < group["observed_expected"] < 1.25
    lag = next(entry for entry in report["checks"] if entry["check"] == "group_lag_records")
    assert (lag["verdict"], lag["value"]) == ("pass", 5.0)
    assert 'rankstream_monitor_slates_total{model="m1",variant="control"} 400.0' in metrics
