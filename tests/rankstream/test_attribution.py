"""Labels of single slates, at the edges of the windows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rankstream.attribution import FEEDBACK_PER_LABEL_MAX, Attribution
from rankstream.contracts.columns import Kind
from rankstream.contracts.labels import (
    ABSENT,
    FINAL,
    PROVISIONAL,
    Attributed,
    FeedbackColumns,
    LabelChange,
    LabelState,
)

CLICK_MS = 1_000
CONVERSION_MS = 5_000
T = 1_000_000
KEY = ("ann", "r1", "i1")
NAMED = ("drama", "", "home")
Row = tuple[Kind, int, int, int, int]  # kind, time, micros, position, number


def _row(kind: Kind, time_ms: int, *, micros: int = 0, position: int = 0, n: int = 0) -> Row:
    return kind, time_ms, micros, position, n


def _attribution() -> Attribution:
    return Attribution(click_window_ms=CLICK_MS, conversion_window_ms=CONVERSION_MS)


def _columns(rows: Sequence[Row], offset: int, before_ms: int) -> FeedbackColumns:
    return FeedbackColumns(
        keys=[KEY] * len(rows),
        kinds=[int(kind) for kind, *_ in rows],
        shown=[(time_ms, position, NAMED) for _, time_ms, _, position, _ in rows],
        value_micros=[micros for _, _, micros, _, _ in rows],
        event_ids=[b"%016d" % n for *_, n in rows],
        offsets=[offset] * len(rows),
        rows=[n for *_, n in rows],
        watermarks_ms=[before_ms] * len(rows),
    )


def _fold(
    attribution: Attribution,
    *rows: Row,
    watermark_ms: int = 0,
    before_ms: int = 0,
    offset: int = 7,
) -> Attributed:
    """Fold rows; labels that they open are among the changes."""
    out = attribution.fold(_columns(rows, offset, before_ms), watermark_ms)
    opened = [
        LabelChange(KEY, rows[k][1], rows[k][3], NAMED, LabelState(), LabelState(PROVISIONAL))
        for k in out.opened
    ]
    out.changes[:0] = opened
    return out


def _folded(*rows: Row, watermark_ms: int) -> Attributed:
    return _fold(_attribution(), *rows, watermark_ms=watermark_ms)


def test_an_impression_alone_is_a_provisional_negative() -> None:
    closed = _folded(_row(Kind.IMPRESSION, T), watermark_ms=0)

    assert [change.new for change in closed.changes] == [LabelState(PROVISIONAL, 0, 0, 0)]
    assert closed.changes[0].old.status == ABSENT


@pytest.mark.parametrize(
    ("after_ms", "clicked"), [(-1, 0), (0, 1), (CLICK_MS, 1), (CLICK_MS + 1, 0)]
)
def test_a_click_counts_within_the_window_ends_included(after_ms: int, clicked: int) -> None:
    closed = _folded(_row(Kind.IMPRESSION, T), _row(Kind.CLICK, T + after_ms), watermark_ms=0)

    assert closed.changes[0].new.clicked == clicked


@pytest.mark.parametrize(
    ("after_ms", "purchased"), [(-1, 0), (0, 1), (CONVERSION_MS, 1), (CONVERSION_MS + 1, 0)]
)
def test_a_purchase_counts_within_the_window_ends_included(after_ms: int, purchased: int) -> None:
    closed = _folded(
        _row(Kind.IMPRESSION, T), _row(Kind.PURCHASE, T + after_ms, micros=5), watermark_ms=0
    )

    assert (closed.changes[0].new.purchased, closed.changes[0].new.value_micros) == (
        purchased,
        5 * purchased,
    )


def test_purchases_of_one_label_add_up() -> None:
    closed = _folded(
        _row(Kind.IMPRESSION, T),
        _row(Kind.PURCHASE, T + 1, micros=5, n=1),
        _row(Kind.PURCHASE, T + 2, micros=7, n=2),
        watermark_ms=0,
    )

    assert closed.changes[0].new == LabelState(PROVISIONAL, 0, 1, 12)


def test_a_late_conversion_corrects_the_label() -> None:
    attribution = _attribution()
    first = _fold(attribution, _row(Kind.IMPRESSION, T), watermark_ms=0)

    second = _fold(attribution, _row(Kind.PURCHASE, T + 10, micros=3), watermark_ms=0)

    assert second.changes[0].old == first.changes[0].new
    assert second.changes[0].new == LabelState(PROVISIONAL, 0, 1, 3)


def test_a_click_that_comes_before_its_impression_waits_for_it() -> None:
    attribution = _attribution()
    waiting = _fold(attribution, _row(Kind.CLICK, T + 10), watermark_ms=T)

    met = _fold(attribution, _row(Kind.IMPRESSION, T), watermark_ms=T)

    assert waiting.changes == []
    assert met.changes[0].new == LabelState(PROVISIONAL, 1, 0, 0)


def test_an_earlier_impression_that_comes_later_takes_the_label_over() -> None:
    attribution = _attribution()
    _fold(attribution, _row(Kind.IMPRESSION, T + 900, position=5), _row(Kind.CLICK, T + 1_500))

    closed = _fold(attribution, _row(Kind.IMPRESSION, T, position=2))

    assert [(moved.kind, moved.time_ms) for moved in closed.moved] == [(Kind.IMPRESSION, T + 900)]
    assert closed.repeats == []
    change = closed.changes[0]
    assert (change.impression_time_ms, change.position, change.new.clicked) == (T, 2, 0)


def test_repeats_of_impression_and_click_count_once() -> None:
    folded = _folded(
        _row(Kind.IMPRESSION, T, n=1),
        _row(Kind.IMPRESSION, T + 1, n=2),
        _row(Kind.CLICK, T + 2, n=3),
        _row(Kind.CLICK, T + 3, n=4),
        watermark_ms=0,
    )

    assert (folded.repeats, folded.moved) == ([1, 3], [])


def test_a_label_that_was_due_before_the_event_came_is_closed_and_another_begins() -> None:
    attribution = _attribution()
    _fold(attribution, _row(Kind.IMPRESSION, T))
    due_ms = T + CONVERSION_MS + 1

    folded = _fold(
        attribution,
        _row(Kind.IMPRESSION, due_ms, position=3),
        before_ms=due_ms,
        watermark_ms=due_ms,
    )

    changes = [(c.impression_time_ms, c.old.status, c.new.status) for c in folded.changes]
    assert changes == [(T, PROVISIONAL, FINAL), (due_ms, ABSENT, PROVISIONAL)]
    assert folded.repeats == []


def test_a_label_is_final_once_the_watermark_is_past_the_longest_window() -> None:
    attribution = _attribution()

    at_the_end = _fold(attribution, _row(Kind.IMPRESSION, T), watermark_ms=T + CONVERSION_MS)
    past_it = _fold(attribution, watermark_ms=T + CONVERSION_MS + 1)

    assert [change.new.status for change in at_the_end.changes] == [PROVISIONAL]
    assert [change.new.status for change in past_it.changes] == [FINAL]
    assert len(attribution) == 0


def test_a_click_without_an_impression_is_given_up_and_makes_no_label() -> None:
    attribution = _attribution()

    held = _fold(attribution, _row(Kind.CLICK, T, n=3), watermark_ms=T + CONVERSION_MS, offset=9)
    closed = _fold(attribution, watermark_ms=T + CONVERSION_MS + 1)

    assert held.unmatched == []
    assert [(u.feedback.offset, u.feedback.row) for u in closed.unmatched] == [(9, 3)]
    assert closed.changes == []


def test_a_click_after_its_window_but_within_the_longest_is_no_dead_letter() -> None:
    closed = _folded(
        _row(Kind.IMPRESSION, T),
        _row(Kind.CLICK, T + CLICK_MS + 1),
        watermark_ms=T + CONVERSION_MS + 1,
    )

    assert closed.unmatched == []
    assert closed.changes[0].new == LabelState(FINAL, 0, 0, 0)


def test_feedback_past_the_limit_of_a_label_is_counted_and_not_kept() -> None:
    attribution = _attribution()
    purchases = [
        _row(Kind.PURCHASE, T + 1, micros=1, n=n) for n in range(FEEDBACK_PER_LABEL_MAX + 2)
    ]

    folded = _fold(attribution, _row(Kind.IMPRESSION, T), *purchases)

    assert folded.changes[0].new.value_micros == FEEDBACK_PER_LABEL_MAX
    assert attribution.overflow == 2
