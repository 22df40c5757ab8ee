"""The board folds definitions, exposures and labels into scorecards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.contracts.codec import decode_experiment, encode_experiment
from rankstream.contracts.experiment import Experiment, Variant
from rankstream.errors import Conflict, InvalidExperiment, UnknownExperiment
from rankstream.pb import events_pb2 as pb
from services.experiments.board import Board

START_MS = 1_700_000_000_000


def an_experiment(**changes: object) -> Experiment:
    fields = {
        "id": "rankers",
        "salt": "s1",
        "layer": "ranking",
        "variants": (
            Variant(name="control", weight_bp=5000, model="champion"),
            Variant(name="treatment", weight_bp=5000, model="challenger"),
        ),
        "traffic_bp": 10_000,
        "control": "control",
        "primary_metric": "ctr",
        "status": "running",
        "start_ms": START_MS,
    }
    return Experiment.model_validate(fields | changes)


def an_exposure(unit: str, variant: str, at_ms: int = START_MS + 10) -> bytes:
    return pb.Exposure(
        experiment_id="rankers",
        experiment_version=1,
        variant=variant,
        unit=unit,
        exposure_time_ms=at_ms,
    ).SerializeToString()


def labels(offset: int, *rows: tuple[str, int, int], partition: int = 0) -> bytes:
    """A record of (user, old clicked or -1 for a new label, new clicked) rows."""
    batch = pb.LabelBatch(
        source_partition=partition, first_offset=offset, source_offset=offset, strings=[""]
    )
    for user, old, new in rows:
        if user not in batch.strings:
            batch.strings.append(user)
        batch.user_id.append(list(batch.strings).index(user))
        batch.item_id.append(0)
        batch.request_id.append(0)
        batch.impression_time_ms.append(START_MS + 20)
        batch.position.append(0)
        batch.old_status.append(pb.LABEL_ABSENT if old < 0 else pb.LABEL_PROVISIONAL)
        batch.new_status.append(pb.LABEL_PROVISIONAL)
        batch.old_clicked.append(max(old, 0))
        batch.new_clicked.append(new)
        for column in (batch.old_purchased, batch.new_purchased):
            column.append(0)
        for column in (batch.old_value_micros, batch.new_value_micros):
            column.append(0)
    return batch.SerializeToString()


def totals(board: Board) -> dict[str, tuple[int, int, int]]:
    scorecard = board.scorecard("rankers", alpha=0.05)
    return {v.variant: (v.units, v.impressions, v.clicks) for v in scorecard.variants}


@given(
    weights=st.integers(1, 9_999),
    start=st.none() | st.integers(1, 1 << 50),
    overrides=st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from(["a", "b"])),
)
def test_a_definition_survives_the_wire(
    weights: int, start: int | None, overrides: dict[str, str]
) -> None:
    experiment = an_experiment(
        variants=(
            Variant(name="a", weight_bp=weights, model="champion"),
            Variant(name="b", weight_bp=10_000 - weights, model="challenger"),
        ),
        control="a",
        start_ms=start,
        status="draft" if start is None else "running",
        overrides=overrides,
        guardrails=("cvr",),
    )

    assert decode_experiment(encode_experiment(experiment)) == experiment


def test_bytes_that_are_no_definition_are_refused_by_name() -> None:
    with pytest.raises(InvalidExperiment, match="invalid_experiment"):
        decode_experiment(b"\xff\xff")
    with pytest.raises(InvalidExperiment, match="invalid_experiment"):
        decode_experiment(b"")


def test_a_click_moves_the_label_and_counts_once() -> None:
    board = Board()
    board.put(an_experiment())
    board.expose(an_exposure("u1", "control"))

    board.label(labels(5, ("u1", -1, 0), ("u1", -1, 0)))
    board.label(labels(6, ("u1", 0, 1)))

    assert totals(board) == {"control": (1, 2, 1), "treatment": (0, 0, 0)}


def test_a_record_that_is_read_again_changes_nothing() -> None:
    board = Board()
    board.put(an_experiment())
    board.expose(an_exposure("u1", "treatment"))
    record = labels(5, ("u1", -1, 1))
    board.label(record)
    before = totals(board)

    board.label(record)
    board.expose(an_exposure("u1", "treatment"))

    assert totals(board) == before
    assert board.skipped["label_seen_before"] == 1


def test_a_label_that_comes_before_its_exposure_counts_once_the_exposure_is_there() -> None:
    board = Board()
    board.put(an_experiment())
    board.label(labels(5, ("u1", -1, 1)))

    board.expose(an_exposure("u1", "treatment"))

    assert totals(board)["treatment"] == (1, 1, 1)


def test_bytes_that_are_not_ours_are_counted_and_skipped() -> None:
    board = Board()
    board.define(b"\xff\xff")
    board.expose(b"\xff\xff")
    board.label(b"\xff\xff")
    board.expose(an_exposure("u1", "control"))

    assert dict(board.skipped) == {
        "invalid_experiment": 1,
        "invalid_exposure": 1,
        "invalid_label": 1,
        "exposure_of_unknown_experiment": 1,
    }


def test_an_unknown_experiment_is_named_and_so_are_the_known_ones() -> None:
    board = Board()
    board.put(an_experiment())

    with pytest.raises(UnknownExperiment, match=r"'other' \(known: rankers\)"):
        board.scorecard("other", alpha=0.05)


def test_a_draft_has_no_scorecard() -> None:
    board = Board()
    board.put(an_experiment(status="draft", start_ms=None))

    with pytest.raises(Conflict, match="is a draft"):
        board.scorecard("rankers", alpha=0.05)


def test_only_the_next_version_is_taken() -> None:
    board = Board()
    board.put(an_experiment())

    with pytest.raises(Conflict, match="next version is 2"):
        board.check(an_experiment())
    with pytest.raises(Conflict, match="salt"):
        board.check(an_experiment(version=2, salt="s2"))


def test_two_running_experiments_may_not_share_buckets_of_a_layer() -> None:
    board = Board()
    board.put(an_experiment())

    with pytest.raises(InvalidExperiment, match="overlap in layer ranking"):
        board.check(an_experiment(id="second"))


def test_a_record_that_contradicts_the_definition_in_force_is_counted_and_skipped() -> None:
    board = Board()
    board.put(an_experiment())

    board.define(encode_experiment(an_experiment(version=2, salt="s2")))
    board.define(encode_experiment(an_experiment(id="odd", primary_metric="no-such-metric")))

    assert board.skipped["invalid_experiment"] == 2
    assert board.experiments() == [an_experiment()]
