"""Sliding windows: what is in, what has left, and the reference that a feature is held against."""

from __future__ import annotations

import numpy as np

from rankstream.monitoring.checks import check_limit
from rankstream.monitoring.feature_window import FeatureWindow
from rankstream.monitoring.freshness import Delays
from rankstream.monitoring.histogram import Histogram, reference_histogram
from rankstream.monitoring.panes import Panes


def delays(panes: Panes[Delays]) -> int:
    whole = panes.merged()
    return 0 if whole is None else whole.n


def test_a_window_holds_its_panes_and_lets_older_ones_go() -> None:
    panes: Panes[Delays] = Panes(pane_ms=10, count=3)
    one = Delays.of([5.0])

    kept = [panes.add(time_ms, one) for time_ms in (100, 109, 110, 129, 95, 100)]

    assert kept == [True, True, True, True, False, True]
    assert [start for start, _ in panes.items()] == [100, 110, 120]
    assert delays(panes) == 5
    panes.advance(131)
    assert delays(panes) == 2
    panes.advance(0)
    assert delays(panes) == 2
    panes.advance(10_000)
    assert panes.merged() is None


def rows(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return rng.normal([0.0, shift], 1.0, size=(n, 2)).astype(np.float32)


def a_window(training: dict[str, Histogram], *, first_window_rows: int = 1000) -> FeatureWindow:
    return FeatureWindow(
        ("a", "b"), training, first_window_rows=first_window_rows, pane_ms=1000, panes=5
    )


def test_served_features_are_compared_with_the_training_histograms() -> None:
    rng = np.random.default_rng(1)
    sample = rows(rng, 5000)
    training = {name: reference_histogram(sample[:, i]) for i, name in enumerate("ab")}
    window = a_window(training)

    window.add(1000, rows(rng, 1000, shift=1.0))

    found = window.compare()
    assert [(entry.feature, entry.reference) for entry in found] == [
        ("a", "training"),
        ("b", "training"),
    ]
    assert [entry.drift.verdict() for entry in found if entry.drift] == ["pass", "fail"]


def test_without_training_histograms_the_first_rows_are_the_reference() -> None:
    rng = np.random.default_rng(2)
    window = a_window({})
    window.add(1000, rows(rng, 999))
    before = window.compare()
    window.add(1000, rows(rng, 1))
    made = window.compare()

    window.add(2000, rows(rng, 1000, shift=1.0))

    assert [(entry.reference, entry.drift) for entry in before] == [("none", None)] * 2
    assert [(entry.reference, entry.drift) for entry in made] == [("first_window", None)] * 2
    found = window.compare()
    assert [entry.drift.verdict() for entry in found if entry.drift] == ["pass", "fail"]


def test_a_feature_that_training_left_out_is_held_against_the_first_rows() -> None:
    rng = np.random.default_rng(3)
    window = a_window({"a": reference_histogram(rng.normal(3.0, 1.0, size=5000))})
    window.add(1000, rows(rng, 1000))

    window.add(2000, rows(rng, 1000))

    found = window.compare()
    assert [entry.reference for entry in found] == ["training", "first_window"]
    assert [entry.drift.verdict() for entry in found if entry.drift] == ["fail", "pass"]


def test_drift_ends_when_the_drifted_rows_leave_the_window() -> None:
    rng = np.random.default_rng(4)
    window = a_window({})
    window.add(0, rows(rng, 1000))
    window.add(1000, rows(rng, 1000, shift=1.0))

    window.add(7000, rows(rng, 1000))

    assert [entry.drift.verdict() for entry in window.compare() if entry.drift] == ["pass", "pass"]


def test_a_limit_check_needs_data_before_it_passes_or_fails() -> None:
    few = check_limit("lag", (), 7.0, limit=5.0, n=9, n_min=10)
    above = check_limit("lag", (), 7.0, limit=5.0, n=10, n_min=10)
    at = check_limit("lag", (), 5.0, limit=5.0, n=10, n_min=10)
    none = check_limit("lag", (), None, limit=5.0, n=10, n_min=10)

    assert [check.verdict for check in (few, above, at, none)] == [
        "inconclusive",
        "fail",
        "pass",
        "inconclusive",
    ]
    assert few.reason == "9 observations (at least 10 needed)"
