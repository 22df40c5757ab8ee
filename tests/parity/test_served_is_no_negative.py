"""An item that was served and never seen on screen is no negative: nobody counts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankstream.contracts.codec import encode_experiment
from rankstream.contracts.experiment import Experiment, Variant
from rankstream.features.rows import TOTALS, USER_ROW
from rankstream.pb import events_pb2 as pb
from rankstream.stream.partition import FoldSettings
from services.experiments.board import Board
from services.monitor.fold import Fold
from services.monitor.records import decode_labels, decode_slate
from services.monitor.settings import MonitorSettings
from tests.parity.events import START_MS, an_event
from tests.parity.stream import Stream
from tests.services.monitor.monitor_log import a_record

SERVED = [f"i{slot}" for slot in range(10)]
SEEN = SERVED[:3]
CLICKED = "i1"


def feedback() -> tuple[Stream, list[pb.LabelBatch]]:
    """Ten items were served to one user; three came on screen, and one of those was clicked."""
    stream = Stream(FoldSettings(click_window_ms=1_000, conversion_window_ms=1_000, lateness_ms=0))
    events = [
        an_event("impression", slot, user="u1", request_id="r1", item_id=item, position=slot)
        for slot, item in enumerate(SEEN)
    ]
    click = an_event("click", 10, after_ms=500, user="u1", request_id="r1", item_id=CLICKED)
    outputs = [stream.send(events), stream.send([click]), stream.tick(START_MS + 10_000)]
    return stream, [pb.LabelBatch.FromString(out.label_batch) for out in outputs]


def a_slate() -> pb.ServedSlate:
    return pb.ServedSlate(
        request_id="r1",
        user_id="u1",
        served_time_ms=START_MS,
        item_id=SERVED,
        category=[""] * len(SERVED),
        pctr=[0.3] * len(SERVED),
        model_id="m1",
        variant="control",
    )


def test_labels_and_counters_are_of_impressions_only() -> None:
    stream, _ = feedback()

    ((_, packed),) = stream.users.rows(["u1"])

    assert {key[2]: label[1] for key, label in stream.labels.items()} == {
        "i0": 0,
        "i1": 1,
        "i2": 0,
    }
    (row,) = np.frombuffer(packed, USER_ROW)
    assert row["totals"][TOTALS.index("impressions")] == len(SEEN)


def test_the_monitor_counts_what_was_seen_and_predicts_for_the_same() -> None:
    fold = Fold(MonitorSettings(artifacts=Path("nowhere")))
    fold.serve([decode_slate(a_record("served", 0, START_MS, a_slate()))])

    _, batches = feedback()
    for offset, batch in enumerate(batches):
        fold.label([decode_labels(a_record("labels", offset, START_MS + 1_000, batch))])

    (panes,) = fold.calibration.values()
    counted = panes.merged()
    assert counted is not None
    assert (counted.n.sum(), counted.clicks.sum()) == (len(SEEN), 1)
    assert round(counted.expected.sum() / 1e9, 6) == round(0.3 * len(SEEN), 6)


def test_a_scorecard_has_the_unit_and_only_its_impressions() -> None:
    board = Board()
    variants = tuple(
        Variant(name=name, weight_bp=5_000, model=name) for name in ("control", "treatment")
    )
    experiment = Experiment(
        id="e", salt="s", layer="l", variants=variants, control="control", primary_metric="ctr",
        status="running", traffic_bp=10_000, start_ms=START_MS - 1,
    )  # fmt: skip
    board.define(encode_experiment(experiment))
    for unit in ("u1", "never-saw-anything"):
        exposure = pb.Exposure(
            experiment_id="e", variant="control", unit=unit, exposure_time_ms=START_MS
        )
        board.expose(exposure.SerializeToString())

    _, batches = feedback()
    for batch in batches:
        board.label(batch.SerializeToString())

    control = board.scorecard("e", alpha=0.05).variants[0]
    assert (control.units, control.impressions, control.clicks) == (2, len(SEEN), 1)
