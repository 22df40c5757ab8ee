"""Who becomes champion, and who does not for want of data."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluate.comparison import (
    Comparison,
    Latency,
    ModelEvidence,
    SliceEvidence,
)
from pipelines.evaluate.intervals import Difference, Draws, Interval
from pipelines.evaluate.judge import Check, Decision, Rules, holm, judge
from rankstream.errors import InvalidInput

NAN = math.nan


def a_gain(low: float, high: float, *, p_value: float = 0.002) -> Difference:
    return Difference((low + high) / 2, low, high, 0.95, p_value)


def a_slice(
    low: float, high: float, *, value: str = "de", too_small: str = "", attribute: str = "country"
) -> SliceEvidence:
    against = {} if too_small else {"auc": a_gain(low, high), "log_loss": a_gain(low, high)}
    return SliceEvidence(attribute, value, 1_000, 100, 100, too_small, {}, against)


def a_candidate(
    name: str = "candidate",
    *,
    gain: Difference | None = None,
    ece: Interval | None = None,
    slices: tuple[SliceEvidence, ...] = (),
    latency: Latency | None = Latency(5.0, 1_000),  # noqa: B008
) -> ModelEvidence:
    """One that passes every rule but for what is given."""
    return ModelEvidence(
        name,
        metrics={"ece": ece or Interval(0.01, 0.005, 0.015, 0.95)},
        against={"auc": gain or a_gain(0.01, 0.03)},
        slices=slices,
        latency=latency,
    )


def compared(*candidates: ModelEvidence) -> Comparison:
    return Comparison(
        "incumbent",
        (ModelEvidence("incumbent"), *candidates),
        impressions=10_000,
        users=1_000,
        clicks=900,
        gauc_users_left_out=0.1,
        threshold=0.5,
        draws=Draws(1_000),
        level=0.95,
    )


def the_check(decision: Decision, name: str) -> Check:
    return next(check for check in decision.judgements[0].checks if check.name == name)


def test_a_candidate_that_passes_every_check_becomes_champion() -> None:
    decision = judge(compared(a_candidate(slices=(a_slice(-0.005, 0.02),))), Rules())

    assert (decision.champion, decision.promoted) == ("candidate", True)
    assert [check.verdict for check in decision.judgements[0].checks] == ["pass"] * 4
    assert the_check(decision, "gain in auc") == Check(
        "gain in auc", 0.02, 0.0, 1_000, "pass", "interval 0.01000 to 0.03000, p 0.002 after Holm"
    )


@pytest.mark.parametrize(
    ("candidate", "check", "verdict"),
    [
        (a_candidate(gain=a_gain(-0.03, -0.01)), "gain in auc", "fail"),
        (a_candidate(gain=a_gain(-0.01, 0.03)), "gain in auc", "inconclusive"),
        (a_candidate(gain=a_gain(NAN, NAN, p_value=NAN)), "gain in auc", "inconclusive"),
        (a_candidate(gain=a_gain(0.01, 0.02, p_value=0.2)), "gain in auc", "inconclusive"),
        (a_candidate(gain=a_gain(0.03, 0.01)), "gain in auc", "error"),
        (a_candidate(ece=Interval(0.05, 0.04, 0.06, 0.95)), "ece", "fail"),
        (a_candidate(ece=Interval(0.02, 0.01, 0.03, 0.95)), "ece", "inconclusive"),
        (a_candidate(ece=Interval(0.01, NAN, NAN, 0.95)), "ece", "inconclusive"),
        (a_candidate(slices=(a_slice(-0.05, -0.02),)), "gain in auc, country=de", "fail"),
        (a_candidate(slices=(a_slice(-0.05, 0.02),)), "gain in auc, country=de", "inconclusive"),
        (a_candidate(latency=Latency(30.0, 1_000)), "latency_ms_p99", "fail"),
        (a_candidate(latency=Latency(5.0, 3)), "latency_ms_p99", "inconclusive"),
        (a_candidate(latency=None), "latency_ms_p99", "inconclusive"),
        (a_candidate(latency=Latency(NAN, 1_000)), "latency_ms_p99", "error"),
    ],
)
def test_one_check_that_does_not_pass_keeps_the_incumbent(
    candidate: ModelEvidence, check: str, verdict: str
) -> None:
    decision = judge(compared(candidate), Rules())

    assert (decision.champion, decision.promoted) == ("incumbent", False)
    assert the_check(decision, check).verdict == verdict
    assert decision.judgements[0].verdict == verdict


def test_no_candidate_and_no_measurement_never_promote() -> None:
    nothing = judge(compared(), Rules())
    unmeasured = judge(compared(ModelEvidence("candidate")), Rules())
    broken = judge(compared(ModelEvidence("candidate", error="pctr is nan")), Rules())

    assert not nothing.promoted
    assert nothing.reason == "no candidate passed every check (no candidates)"
    assert not unmeasured.promoted
    assert unmeasured.judgements[0].verdict == "inconclusive"
    assert broken.judgements[0].verdict == "error"
    assert broken.judgements[0].checks[0].reason == "pctr is nan"


def test_of_several_that_pass_the_one_that_gains_most_is_champion() -> None:
    some = a_candidate("some", gain=a_gain(0.01, 0.03))
    most = a_candidate("most", gain=a_gain(0.03, 0.05))
    unsafe = a_candidate("unsafe", gain=a_gain(0.1, 0.2), latency=Latency(99.0, 1_000))

    assert judge(compared(some, most, unsafe), Rules()).champion == "most"


def test_a_metric_where_less_is_better_gains_by_falling() -> None:
    falls = replace(a_candidate(), against={"log_loss": a_gain(-0.03, -0.01)})
    rises = replace(a_candidate(), against={"log_loss": a_gain(0.01, 0.03)})
    rules = Rules(primary="log_loss", slice_metric="log_loss")

    better, worse = judge(compared(falls), rules), judge(compared(rises), rules)

    assert the_check(better, "gain in log_loss").value == pytest.approx(0.02)
    assert better.promoted
    assert the_check(worse, "gain in log_loss").verdict == "fail"


def test_a_small_slice_is_told_and_blocks_only_if_nothing_else_of_its_attribute_is_judged() -> None:
    small = a_slice(NAN, NAN, value="nz", too_small="3 users (at least 50)")

    beside_a_large = judge(compared(a_candidate(slices=(a_slice(0, 0.1), small))), Rules())
    alone = judge(compared(a_candidate(slices=(small,))), Rules())
    strict = judge(
        compared(a_candidate(slices=(a_slice(0, 0.1), small))), Rules(small_slices_block=True)
    )

    check = the_check(beside_a_large, "gain in auc, country=nz")
    assert beside_a_large.promoted
    assert (check.verdict, check.blocking) == ("inconclusive", False)
    assert check.reason == "too small to judge: 3 users (at least 50)"
    assert not alone.promoted
    assert not strict.promoted


def test_the_more_candidates_are_tried_the_more_a_gain_must_show() -> None:
    lucky = a_candidate("lucky", gain=a_gain(0.001, 0.03, p_value=0.03))
    others = [a_candidate(f"c{k}", gain=a_gain(-0.02, 0.02, p_value=0.8)) for k in range(4)]

    assert judge(compared(lucky), Rules()).promoted
    assert not judge(compared(lucky, *others), Rules()).promoted


def naive_step_down(p_values: list[float], alpha: float) -> list[bool]:
    """Holm's procedure as he gives it: from the smallest, reject until one is not small enough."""
    rejected = [False] * len(p_values)
    for step, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        if p_values[k] > alpha / (len(p_values) - step):
            break
        rejected[k] = True
    return rejected


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=12), st.sampled_from([0.0107, 0.0513]))
def test_an_adjusted_p_value_is_small_where_the_step_down_procedure_rejects(
    thousandths: list[int], alpha: float
) -> None:
    p_values = [k / 1_000 for k in thousandths]

    adjusted = holm(p_values)

    assert [p <= alpha for p in adjusted] == naive_step_down(p_values, alpha)


def test_a_candidate_without_a_p_value_still_counts_as_a_try() -> None:
    assert holm([0.02, NAN]) == [pytest.approx(0.04), pytest.approx(NAN, nan_ok=True)]


def test_rules_on_a_metric_without_a_better_direction_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rule on metric 'calibration' \(one of \['accuracy'"):
        Rules(primary="calibration")
    with pytest.raises(InvalidInput, match="rule on metric 'rmse'"):
        Rules(slice_metric="rmse")
    with pytest.raises(InvalidInput, match="rule on metric 'ece'"):
        Rules(primary="ece")
