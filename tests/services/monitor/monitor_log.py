"""Records as the ranker and the features service write them, and a monitor that takes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rankstream.adapters.health import Health
from rankstream.adapters.kafka import Record
from rankstream.adapters.metrics import Metrics
from rankstream.errors import DependencyUnavailable
from rankstream.pb import events_pb2 as pb
from services.monitor.app import LOG, Monitor
from services.monitor.measures import Measures
from services.monitor.report import Report
from services.monitor.settings import MonitorSettings

START_MS = 1_790_000_000_000
WIDTH = 3


class FakeEnds:
    """Offsets without brokers."""

    def __init__(self, lag: dict[tuple[str, str, int], int] | None = None) -> None:
        self.answer = lag

    async def lag(self, groups: tuple[str, ...]) -> dict[tuple[str, str, int], int]:
        if self.answer is None:
            raise DependencyUnavailable("dependency_unavailable: no brokers")
        return self.answer

    async def offsets_at(self, names: tuple[str, ...], time_ms: int) -> dict[tuple[str, int], int]:
        return {}


class Stream:
    """Builds records; offsets of both topics count up by themselves."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.served: list[Record] = []
        self.labels: list[Record] = []

    def slate(
        self,
        at_ms: int,
        *,
        n: int = 5,
        shift: float = 0.0,
        true_factor: float = 1.0,
        model_id: str = "m1",
        degraded: Iterable[str] = (),
        click_after_ms: int = 1_000,
    ) -> str:
        """One slate, its impressions 200 ms later, and its clicks."""
        request_id = f"r{len(self.served)}"
        pctr = self.rng.beta(2, 10, size=n)
        features = self.rng.normal(shift, 1, size=(n, WIDTH)).astype("<f4")
        message = pb.ServedSlate(
            request_id=request_id,
            user_id=f"u{len(self.served) % 50}",
            served_time_ms=at_ms,
            item_id=[f"i{slot}" for slot in range(n)],
            pctr=pctr.tolist(),
            features=features.tobytes(),
            spec_id="spec",
            model_id=model_id,
            variant="control",
            degraded=degraded,
        )
        self.served.append(a_record("served", len(self.served), at_ms + 20, message))
        shown = [(request_id, slot, 0) for slot in range(n)]
        self.label(at_ms + 200, at_ms + 250, shown, status=(pb.LABEL_ABSENT, pb.LABEL_PROVISIONAL))
        clicked = self.rng.random(n) < np.minimum(pctr * true_factor, 1)
        clicks = [(request_id, slot, 1) for slot in np.flatnonzero(clicked).tolist()]
        self.label(
            at_ms + 200,
            at_ms + 200 + click_after_ms,
            clicks,
            status=(pb.LABEL_PROVISIONAL, pb.LABEL_PROVISIONAL),
        )
        return request_id

    def label(
        self,
        impression_ms: int,
        seen_ms: int,
        rows: list[tuple[str, int, int]],
        *,
        status: tuple[pb.LabelStatus, pb.LabelStatus],
    ) -> None:
        names = sorted({request for request, _, _ in rows} | {f"i{slot}" for _, slot, _ in rows})
        strings = ["", *names]
        n = len(rows)
        message = pb.LabelBatch(
            source_partition=0,
            first_offset=len(self.labels),
            source_offset=len(self.labels),
            strings=strings,
            user_id=[0] * n,
            request_id=[strings.index(request) for request, _, _ in rows],
            item_id=[strings.index(f"i{slot}") for _, slot, _ in rows],
            impression_time_ms=[impression_ms] * n,
            position=[slot for _, slot, _ in rows],
            old_status=[status[0]] * n,
            new_status=[status[1]] * n,
            old_clicked=[0] * n,
            new_clicked=[clicked for _, _, clicked in rows],
        )
        self.labels.append(a_record("labels", len(self.labels), seen_ms, message))


def a_record(
    topic: str, offset: int, timestamp_ms: int, message: pb.ServedSlate | pb.LabelBatch | bytes
) -> Record:
    value = message if isinstance(message, bytes) else message.SerializeToString()
    return Record(topic, 0, offset, timestamp_ms, b"k", value)


def in_order_of_time(labels: Iterable[Record], *, until_ms: int) -> list[Record]:
    """Records up to then as a log has them: numbered in the order of their times."""
    numbered = []
    seen = [record for record in labels if record.timestamp_ms <= until_ms]
    for offset, record in enumerate(sorted(seen, key=lambda record: record.timestamp_ms)):
        batch = pb.LabelBatch.FromString(record.value or b"")
        batch.first_offset = batch.source_offset = offset
        numbered.append(a_record(record.topic, offset, record.timestamp_ms, batch))
    return numbered


def a_monitor(
    tmp_path: Path, *, registry: CollectorRegistry | None = None, ends: FakeEnds | None = None
) -> Monitor:
    settings = MonitorSettings(artifacts=tmp_path, first_window_rows=500)
    health = Health(LOG)
    health.ready(LOG)
    return Monitor(
        settings,
        ends=ends or FakeEnds({("features", "events", 0): 7}),
        reader=lambda offsets: pytest.fail("no log in this test"),
        measures=Measures(Metrics(registry or CollectorRegistry())),
        health=health,
        now_ms=lambda: START_MS,
    )


def verdicts(report: Report, check: str) -> dict[str, str]:
    return {
        "/".join(entry.subject.values()): entry.verdict
        for entry in report.checks
        if entry.check == check
    }


async def report_of(monitor: Monitor, records: list[Record]) -> Report:
    await monitor.take(records)
    monitor.measure()
    return monitor.latest()
