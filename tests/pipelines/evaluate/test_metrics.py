"""Figures of the evaluation report."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipelines.evaluate.metrics import calibration_error, ranker_metrics, recall_at
from pipelines.evaluate.report import write_report


def test_a_calibrated_model_has_no_calibration_error_and_a_shifted_one_has_its_shift() -> None:
    rng = np.random.default_rng(1)
    pctr = rng.uniform(0.1, 0.6, 200_000)
    clicked = (rng.random(len(pctr)) < pctr).astype(np.uint8)

    assert calibration_error(clicked, pctr) < 0.005
    assert calibration_error(clicked, pctr + 0.2) == pytest.approx(0.2, abs=0.005)


def test_a_perfect_order_has_auc_one() -> None:
    metrics = ranker_metrics(np.array([0, 0, 1, 1], np.uint8), np.array([0.1, 0.2, 0.3, 0.4]))

    assert metrics["auc"] == 1.0
    assert metrics["calibration"] == pytest.approx(0.5)


def test_recall_counts_the_likes_that_are_among_the_candidates() -> None:
    histories = [np.array([0]), np.array([1]), np.array([2])]

    recall = recall_at(2, histories, np.array([5, 6, 9]), lambda history, k: np.arange(5, 5 + k))

    assert recall == pytest.approx(2 / 3)
    assert math.isnan(recall_at(2, [], np.array([], np.int64), lambda history, k: history))


def test_the_report_has_every_figure(tmp_path: Path) -> None:
    write_report(tmp_path / "r", "Models", {"rows": "10"}, {"champion": {"auc": 0.75}})

    assert "| auc | 0.75 |" in (tmp_path / "r" / "report.md").read_text()
    assert '"auc": 0.75' in (tmp_path / "r" / "report.json").read_text()
