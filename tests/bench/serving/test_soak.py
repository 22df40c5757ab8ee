"""What counts as a wrong answer, and as a step in latency."""

from __future__ import annotations

import numpy as np
import pytest

from bench.serving.shop import SLATE
from bench.serving.soak import wrong
from bench.serving.swap import SETTLED_S, worst_window_ms
from rankstream.pb.ranker_pb2 import RankReply

ITEMS = [f"i{number}" for number in range(SLATE + 1)]


def a_reply() -> RankReply:
    return RankReply(
        item_id=ITEMS[:SLATE], score=np.linspace(0.9, 0.1, SLATE), propensity=[0.5] * SLATE
    )


def test_an_answer_that_keeps_the_contract_is_not_wrong() -> None:
    assert wrong(a_reply(), frozenset(ITEMS)) == ""


@pytest.mark.parametrize(
    ("field", "values", "what"),
    [
        ("item_id", ITEMS[: SLATE - 1], "length"),
        ("item_id", [*ITEMS[: SLATE - 1], ITEMS[0]], "duplicates"),
        ("item_id", [*ITEMS[: SLATE - 1], "other"], "unknown items"),
        ("score", [float("nan")] * SLATE, "scores"),
        ("propensity", [0.0] * SLATE, "propensities"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_told_by_what(
    field: str, values: list[object], what: str
) -> None:
    reply = a_reply()
    getattr(reply, field)[:] = values

    assert wrong(reply, frozenset(ITEMS)) == what


def test_a_step_that_is_over_within_a_second_does_not_count() -> None:
    at_s = np.arange(0.0, 10.0, 0.01)
    latency_ms = np.where((at_s >= 2.0) & (at_s < 2.0 + SETTLED_S), 90.0, 10.0)

    assert worst_window_ms(at_s, latency_ms, [2.0]) == 10.0
    assert worst_window_ms(at_s, latency_ms, [1.5]) == 90.0
