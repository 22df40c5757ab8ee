"""Records that are none of ours, or contradict themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankstream.errors import InvalidBatch
from rankstream.pb import events_pb2 as pb
from services.monitor.records import decode_labels, decode_slate
from tests.services.monitor.monitor_log import (
    START_MS,
    Stream,
    a_monitor,
    a_record,
    report_of,
)


async def test_a_record_that_is_none_of_ours_is_counted_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    stream = Stream()
    stream.slate(START_MS)
    junk = [a_record("served", 9, START_MS, b"\xff\xff"), a_record("labels", 9, START_MS, b"\x0f")]

    report = await report_of(a_monitor(tmp_path), [*junk, *stream.served, *stream.labels])

    assert report.skipped["invalid_batch"] == 2
    assert report.labels["joined"] >= 5


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.ServedSlate(), "holds 0 items"),
        (pb.ServedSlate(item_id=["a", "b"], pctr=[0.5]), "2 items, 1 pctr"),
        (pb.ServedSlate(item_id=["a"], pctr=[0.5], features=b"123"), "3 bytes of features"),
        (pb.ServedSlate(item_id=["a"], pctr=[1.5]), r"outside \[0, 1\]"),
        (pb.ServedSlate(item_id=["a"], pctr=[float("nan")]), r"outside \[0, 1\]"),
    ],
)
def test_a_slate_that_contradicts_itself_is_refused(message: pb.ServedSlate, words: str) -> None:
    with pytest.raises(InvalidBatch, match=words):
        decode_slate(a_record("served", 3, START_MS, message))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (pb.LabelBatch(strings=[""], item_id=[0]), "different lengths"),
        (
            pb.LabelBatch(
                strings=[""],
                request_id=[0],
                item_id=[7],
                impression_time_ms=[1],
                old_status=[pb.LABEL_ABSENT],
                new_status=[pb.LABEL_PROVISIONAL],
                old_clicked=[0],
                new_clicked=[0],
            ),
            "points past its 1 strings",
        ),
    ],
)
def test_labels_that_contradict_themselves_are_refused(message: pb.LabelBatch, words: str) -> None:
    with pytest.raises(InvalidBatch, match=words):
        decode_labels(a_record("labels", 3, START_MS, message))
