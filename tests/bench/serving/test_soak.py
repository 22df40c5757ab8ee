"""What counts as a wrong answer, and as a step in latency."""

from __future__ import annotations

import numpy as np
import pytest

from bench.serving.shop import SLATE
from bench.serving.soak import wrong
from bench.serving.swap import SETTLED_S, worst_window_ms
from rankstream.pb.ranker_pb2 import RankReply

ITEMS = [f"i{number}" for number in range(SLATE + 1)]
CATEGORY_OF = dict.fromkeys(ITEMS, "shoes")
NOW_MS = 1_700_000_000_000


def a_reply() -> RankReply:
    return RankReply(
        item_id=ITEMS[:SLATE],
        score=np.linspace(0.9, 0.1, SLATE),
        propensity=[0.95] * SLATE,
        category=["shoes"] * SLATE,
        served_time_ms=NOW_MS,
    )


def test_an_answer_that_keeps_the_contract_is_not_wrong() -> None:
    assert wrong(a_reply(), CATEGORY_OF, {}) == ""


@pytest.mark.parametrize(
    ("field", "values", "what"),
    [
        ("item_id", ITEMS[: SLATE - 1], "length"),
        ("item_id", [*ITEMS[: SLATE - 1], ITEMS[0]], "duplicates"),
        ("item_id", [*ITEMS[: SLATE - 1], "other"], "unknown items"),
        ("score", [float("nan")] * SLATE, "scores"),
        ("propensity", [0.0] * SLATE, "propensities"),
        ("score", np.linspace(0.1, 0.9, SLATE), "order"),
        ("category", ["hats", *["shoes"] * (SLATE - 1)], "categories"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_told_by_what(
    field: str, values: list[object], what: str
) -> None:
    reply = a_reply()
    getattr(reply, field)[:] = values

    assert wrong(reply, CATEGORY_OF, {}) == what


def test_a_slot_of_chance_may_have_any_score() -> None:
    reply = a_reply()
    reply.score[3], reply.propensity[3] = 0.0, 0.01

    assert wrong(reply, CATEGORY_OF, {}) == ""


@pytest.mark.parametrize(("more", "what"), [(5e-6, ""), (5e-5, "order")])
def test_scores_may_be_out_of_order_by_rounding_alone(more: float, what: str) -> None:
    reply = a_reply()
    reply.score[4] = reply.score[3] * (1 + more)

    assert wrong(reply, CATEGORY_OF, {}) == what


def test_a_withdrawn_item_may_be_shown_for_five_seconds() -> None:
    assert wrong(a_reply(), CATEGORY_OF, {ITEMS[0]: NOW_MS - 5_000}) == ""
    assert wrong(a_reply(), CATEGORY_OF, {ITEMS[0]: NOW_MS - 5_001}) == "withdrawn"
    assert wrong(a_reply(), CATEGORY_OF, {ITEMS[SLATE]: 0}) == ""


def test_a_step_that_is_over_within_a_second_does_not_count() -> None:
    at_s = np.arange(0.0, 10.0, 0.01)
    latency_ms = np.where((at_s >= 2.0) & (at_s < 2.0 + SETTLED_S), 90.0, 10.0)

    assert worst_window_ms(at_s, latency_ms, [2.0]) == 10.0
    assert worst_window_ms(at_s, latency_ms, [1.5]) == 90.0
