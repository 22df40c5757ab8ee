"""What the monitor says: every check with its verdict, value, limit and amount of data.

Works on the fold and the lag as read; decides by `rankstream.monitoring` and the settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from rankstream.contracts.base import Contract
from rankstream.errors import RankstreamError
from rankstream.monitoring.calibration import (
    Calibration,
    ObservedExpected,
    Reliability,
    observed_over_expected,
    reliability,
)
from rankstream.monitoring.checks import Check, check_limit
from rankstream.monitoring.feature_window import FeatureDrift
from rankstream.monitoring.freshness import Delays
from rankstream.monitoring.join import Group
from rankstream.monitoring.panes import Panes
from services.monitor.fold import Fold
from services.monitor.settings import MonitorSettings

# Points of a pane at which the delay distribution is averaged.
_PANE_POINTS = 11
_NO_REFERENCE = "no training histograms, and too few rows yet for a first window"
_NO_CURRENT = "no rows in the window since the reference was made"

Lag = Mapping[tuple[str, str, int], int]


class CheckReport(Contract):
    """One check. Numbers are None where there is no data."""

    check: str
    subject: dict[str, str]
    verdict: Literal["pass", "fail", "inconclusive", "error"]
    value: float | None
    threshold: float
    n: int
    reason: str


class ModelReport(Contract):
    """What a model's features are compared with."""

    model: str
    spec_id: str
    reference: Literal["training", "first_window"]


class GroupReport(Contract):
    """Calibration of one model and variant over the window."""

    model: str
    variant: str
    impressions: int
    mean_predicted: float | None
    mean_observed: float | None
    observed: int
    expected: float
    observed_expected: float | None
    z: float | None
    ece: float | None
    ece_null_mean: float | None
    mce: float | None


class Report(Contract):
    """All checks as of the newest record read; `as_of_ms` is the log's time."""

    as_of_ms: int
    window_ms: int
    verdicts: dict[str, int]
    checks: tuple[CheckReport, ...]
    models: tuple[ModelReport, ...]
    calibration: tuple[GroupReport, ...]
    labels: dict[str, int]
    skipped: dict[str, int]


class Figures:
    """The numbers behind a report, measured once for the report and the metrics."""

    def __init__(self, fold: Fold) -> None:
        clicks = fold.click_delay.merged() or Delays.empty()
        self.calibration = {
            group: _calibrated(panes, clicks, fold.as_of_ms, fold.pane_ms)
            for group, panes in fold.calibration.items()
        }
        self.drift = {model_id: model.window.compare() for model_id, model in fold.models.items()}
        self.answers = fold.answers.merged()
        self.delays = {
            "served": fold.served_delay.merged() or Delays.empty(),
            "label": fold.label_delay.merged() or Delays.empty(),
            "click": clicks,
        }


def checks(figures: Figures, lag: Lag | RankstreamError, settings: MonitorSettings) -> list[Check]:
    """Every check, in a stable order. A lag that could not be read is an error, not a pass."""
    return [
        *_calibration_checks(figures, settings),
        *_drift_checks(figures, settings),
        *_delay_checks(figures, settings),
        _degraded_check(figures, settings),
        *_lag_checks(lag, settings),
    ]


def report(fold: Fold, figures: Figures, found: Sequence[Check], window_ms: int) -> Report:
    """The report in the form that a client reads."""
    verdicts = dict.fromkeys(("pass", "fail", "inconclusive", "error"), 0)
    for check in found:
        verdicts[check.verdict] += 1
    counts = fold.join.counts
    return Report(
        as_of_ms=fold.as_of_ms,
        window_ms=window_ms,
        verdicts=verdicts,
        checks=tuple(_check_report(check) for check in found),
        models=tuple(
            ModelReport(
                model=model_id,
                spec_id=model.spec_id,
                reference="training" if model.trained else "first_window",
            )
            for model_id, model in sorted(fold.models.items())
        ),
        calibration=tuple(
            _group_report(group, *numbers) for group, numbers in sorted(figures.calibration.items())
        ),
        labels={
            "joined": counts.joined,
            "early": counts.early,
            "unmatched": counts.unmatched,
            "slates_held": fold.join.slates,
            "slates_evicted": counts.slates_evicted,
        },
        skipped=dict(fold.skipped),
    )


def _calibrated(
    panes: Panes[Calibration], clicks: Delays, as_of_ms: int, pane_ms: int
) -> tuple[Reliability, ObservedExpected]:
    """Reliability of the window, and O/E with clicks still on their way taken into account.

    The delays of the clicks seen so far say what share of a pane's clicks should be here by now.
    """
    weighted = []
    for start_ms, summary in panes.items():
        oldest = as_of_ms - start_ms
        # The newest pane is not over yet.
        ages = np.linspace(max(0, oldest - pane_ms), oldest, _PANE_POINTS)
        weighted.append((summary, float(clicks.share_within(ages).mean())))
    whole = panes.merged() or Calibration.empty()
    return reliability(whole), observed_over_expected(weighted)


def _calibration_checks(figures: Figures, settings: MonitorSettings) -> Iterator[Check]:
    for group, (shape, ratio) in sorted(figures.calibration.items()):
        subject = (("model", group.model_id), ("variant", group.variant))
        verdict = ratio.verdict(
            tolerance=settings.observed_expected_tolerance,
            z_limit=settings.observed_expected_z_max,
            expected_min=settings.expected_clicks_min,
        )
        few = f"{ratio.expected:.1f} clicks expected (at least {settings.expected_clicks_min:g})"
        yield Check(
            "observed_expected_gap",
            subject,
            verdict,
            _number(abs(ratio.ratio - 1)),
            settings.observed_expected_tolerance,
            ratio.n,
            few if verdict == "inconclusive" else "",
        )
        yield check_limit(
            "ece_excess",
            subject,
            _number(max(0.0, shape.ece - shape.ece_null_mean)),
            limit=settings.ece_max,
            n=shape.n,
            n_min=settings.observations_min,
        )


def _drift_checks(figures: Figures, settings: MonitorSettings) -> Iterator[Check]:
    # Every feature of every model is a chance of a false alarm: the level is shared among them.
    comparisons = max(1, sum(len(found) for found in figures.drift.values()))
    for model_id, found in sorted(figures.drift.items()):
        for entry in found:
            yield _drift_check(model_id, entry, comparisons, settings)


def _drift_check(
    model_id: str, entry: FeatureDrift, comparisons: int, settings: MonitorSettings
) -> Check:
    subject = (("model", model_id), ("feature", entry.feature), ("reference", entry.reference))
    name, limit = "psi_excess", settings.psi_max
    if entry.drift is None:
        reason = _NO_REFERENCE if entry.reference == "none" else _NO_CURRENT
        return Check(name, subject, "inconclusive", None, limit, 0, reason)
    measured = entry.drift
    verdict = measured.verdict(
        comparisons=comparisons,
        alpha=settings.drift_alpha,
        psi_limit=limit,
        n_min=settings.observations_min,
    )
    few = f"{measured.n_current} rows (at least {settings.observations_min} needed)"
    reason = few if verdict == "inconclusive" else ""
    value = _number(measured.psi_excess)
    return Check(name, subject, verdict, value, limit, measured.n_current, reason)


def _delay_checks(figures: Figures, settings: MonitorSettings) -> Iterator[Check]:
    for stage, limit in (
        ("served", settings.served_delay_ms_p99_max),
        ("label", settings.label_delay_ms_p99_max),
    ):
        delays = figures.delays[stage]
        yield check_limit(
            "delay_ms_p99",
            (("stage", stage),),
            _number(delays.quantile_ms(0.99)),
            limit=limit,
            n=delays.n,
            n_min=settings.observations_min,
        )


def _degraded_check(figures: Figures, settings: MonitorSettings) -> Check:
    answers = figures.answers
    return check_limit(
        "degraded_share",
        (),
        None if answers is None else answers.degraded_share,
        limit=settings.degraded_max,
        n=0 if answers is None else answers.slates,
        n_min=settings.observations_min,
    )


def _lag_checks(lag: Lag | RankstreamError, settings: MonitorSettings) -> Iterator[Check]:
    limit = float(settings.group_lag_records_max)
    for group in settings.group_names:
        subject = (("group", group),)
        if isinstance(lag, RankstreamError):
            yield Check("group_lag_records", subject, "error", None, limit, 0, str(lag))
            continue
        behind = [records for (owner, _, _), records in lag.items() if owner == group]
        yield check_limit(
            "group_lag_records",
            subject,
            float(sum(behind)) if behind else None,
            limit=limit,
            n=len(behind),
            n_min=1,
        )


def _check_report(check: Check) -> CheckReport:
    return CheckReport(
        check=check.name,
        subject=dict(check.subject),
        verdict=check.verdict,
        value=check.value,
        threshold=check.threshold,
        n=check.n,
        reason=check.reason,
    )


def _group_report(group: Group, shape: Reliability, ratio: ObservedExpected) -> GroupReport:
    return GroupReport(
        model=group.model_id,
        variant=group.variant,
        impressions=shape.n,
        mean_predicted=_number(shape.mean_predicted),
        mean_observed=_number(shape.mean_observed),
        observed=ratio.observed,
        expected=ratio.expected,
        observed_expected=_number(ratio.ratio),
        z=_number(ratio.z),
        ece=_number(shape.ece),
        ece_null_mean=_number(shape.ece_null_mean),
        mce=_number(shape.mce),
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
