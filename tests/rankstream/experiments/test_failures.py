"""Evidence against a canary: how often it errs, and how soon it speaks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankstream.experiments.failures import FailureEvidence

ENOUGH = math.log(1_000)


def after(failures: list[bool]) -> FailureEvidence:
    evidence = FailureEvidence()
    for canary in failures:
        evidence = evidence.after(canary=canary)
    return evidence


@given(st.lists(st.booleans(), max_size=9))
def test_under_equal_failure_rates_its_expectation_is_one(failures: list[bool]) -> None:
    before = after(failures)

    worse, better = before.after(canary=True), before.after(canary=False)

    mean = 0.5 * math.exp(worse.log_e) + 0.5 * math.exp(better.log_e)
    assert mean == pytest.approx(math.exp(before.log_e))
    assert (worse.canary, better.control) == (before.canary + 1, before.control + 1)


def test_a_canary_that_fails_as_often_as_its_control_is_hardly_ever_taken_off() -> None:
    rng, runs, alpha = np.random.default_rng(3), 1_500, 0.05
    crossed = 0
    for _ in range(runs):
        evidence = FailureEvidence()
        for canary in (rng.random(150) < 0.5).tolist():
            evidence = evidence.after(canary=canary)
            if evidence.log_e >= -math.log(alpha):
                crossed += 1
                break

    assert crossed / runs <= alpha + 3 * math.sqrt(alpha / runs)


def test_a_canary_that_fails_alone_is_taken_off_after_fourteen_failures() -> None:
    counts = [n for n in range(1, 30) if after([True] * n).log_e >= ENOUGH]

    assert counts[0] == 14


def test_failures_of_the_control_never_speak_against_the_canary() -> None:
    assert after([False] * 1_000).log_e == 0.0
