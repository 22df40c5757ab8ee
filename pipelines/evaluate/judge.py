"""Which candidate becomes champion, by rules stated before anyone looked.

A candidate is promoted only if every blocking check passes. That is an intersection-union test, so
the checks need no correction for their number (Berger, "Multiparameter Hypothesis Testing and
Acceptance Sampling", Technometrics 1982); the number of candidates does, since the best of many is
chosen: their p-values on the primary metric are adjusted by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipelines.evaluate.comparison import Comparison, ModelEvidence, SliceEvidence
from pipelines.evaluate.impressions import refusal
from pipelines.evaluate.weighted import METRICS
from rankstream.monitoring.drift import Verdict

LATENCY_N_MIN: Final = 100


@dataclass(frozen=True)
class Rules:
    """What a candidate must show.

    `primary`: metric whose paired interval must lie above `gain_min` over the incumbent, in the
    metric's unit and its better direction. `ece_max`: limit of the calibration error.
    `slice_metric` must in no slice be worse than the incumbent's by more than `slice_loss_max`.
    `latency_ms_max`: limit of the 99th percentile. `small_slices_block`: whether a slice too small
    to judge keeps a candidate from promotion; an attribute without any slice to judge always does.
    """

    primary: str = "auc"
    gain_min: float = 0.0
    alpha: float = 0.05
    ece_max: float = 0.02
    slice_metric: str = "auc"
    slice_loss_max: float = 0.01
    latency_ms_max: float = 20.0
    small_slices_block: bool = False

    def __post_init__(self) -> None:
        """Raises: InvalidInput: a metric that is unknown, has no better direction or no pairs."""
        known = sorted(name for name, found in METRICS.items() if found.better and found.paired)
        for name in (self.primary, self.slice_metric):
            if name not in known:
                raise refusal(f"rule on metric {name!r} (one of {known})", "Name another.")


@dataclass(frozen=True)
class Check:
    """One rule on one candidate. `n` is what it rests on: users, or requests for latency.

    `value` is nan where nothing was measured; `reason` says what the verdict rests on.
    """

    name: str
    value: float
    threshold: float
    n: int
    verdict: Verdict
    reason: str
    blocking: bool = True


@dataclass(frozen=True)
class Judgement:
    """All checks of one candidate; its verdict is that of the worst blocking one."""

    model: str
    verdict: Verdict
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Decision:
    """The champion: the passing candidate that gains most, or the incumbent."""

    champion: str
    promoted: bool
    reason: str
    rules: Rules
    judgements: tuple[Judgement, ...]


def judge(comparison: Comparison, rules: Rules) -> Decision:
    """The champion of a comparison. No data never promotes: the incumbent stays."""
    candidates = [model for model in comparison.models if model.model != comparison.incumbent]
    adjusted = holm([_p_value(model, rules.primary) for model in candidates])
    judgements = tuple(
        _judge_one(model, p, comparison.users, rules)
        for model, p in zip(candidates, adjusted, strict=True)
    )
    passed = [judged.model for judged in judgements if judged.verdict == "pass"]
    if not passed:
        counts = ", ".join(f"{judged.model}: {judged.verdict}" for judged in judgements)
        return Decision(
            comparison.incumbent,
            False,
            f"no candidate passed every check ({counts or 'no candidates'})",
            rules,
            judgements,
        )
    best = max(passed, key=lambda name: _gain(comparison.of(name), rules.primary)[0])
    gain = _gain(comparison.of(best), rules.primary)[0]
    reason = f"{best} passed every check and gains most in {rules.primary}: {gain:.4g}"
    return Decision(best, True, reason, rules, judgements)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values; nan stays nan, and counts as a test.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    m = len(p_values)
    order = sorted(range(m), key=lambda k: (math.isnan(p_values[k]), p_values[k]))
    adjusted, floor = [math.nan] * m, 0.0
    for rank, k in enumerate(order):
        if not math.isnan(p_values[k]):
            floor = max(floor, min(1.0, (m - rank) * p_values[k]))
            adjusted[k] = floor
    return adjusted


def _judge_one(model: ModelEvidence, p_value: float, users: int, rules: Rules) -> Judgement:
    if model.error:
        check = Check("predictions", math.nan, math.nan, 0, "error", model.error)
        return Judgement(model.model, "error", (check,))
    checks = (
        _primary(model, p_value, users, rules),
        _ece(model, users, rules),
        *_slices(model.slices, rules),
        _latency(model, rules),
    )
    return Judgement(
        model.model, _worst(check.verdict for check in checks if check.blocking), checks
    )


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    order: tuple[Verdict, ...] = ("error", "fail", "inconclusive", "pass")
    return next(verdict for verdict in order if verdict in found)


def _p_value(model: ModelEvidence, metric: str) -> float:
    return model.against[metric].p_value if metric in model.against else math.nan


def _gain(model: ModelEvidence | SliceEvidence, metric: str) -> tuple[float, float, float]:
    """Difference, low and high end with its sign turned so that more is better."""
    if metric not in model.against:
        return math.nan, math.nan, math.nan
    gap = model.against[metric]
    if METRICS[metric].better > 0:
        return gap.value, gap.low, gap.high
    return -gap.value, -gap.high, -gap.low


def _above(low: float, high: float, threshold: float) -> Verdict:
    """Where an interval lies: pass above the threshold, fail below, inconclusive across it."""
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    if low > high or math.isinf(low) or math.isinf(high):
        return "error"
    return "pass" if low > threshold else "fail" if high <= threshold else "inconclusive"


def _span(low: float, high: float) -> str:
    return "no interval: no data" if math.isnan(low) else f"interval {low:#.4g} to {high:#.4g}"


def _primary(model: ModelEvidence, p_value: float, users: int, rules: Rules) -> Check:
    value, low, high = _gain(model, rules.primary)
    verdict = _above(low, high, rules.gain_min)
    reason = f"{_span(low, high)}, p {p_value:.3g} after Holm"
    if verdict == "pass" and not p_value <= rules.alpha:
        verdict, reason = "inconclusive", f"{reason} (limit {rules.alpha:g})"
    name = f"gain in {rules.primary}"
    return Check(name, value, rules.gain_min, users, verdict, reason)


def _ece(model: ModelEvidence, users: int, rules: Rules) -> Check:
    if "ece" not in model.metrics:
        return Check("ece", math.nan, rules.ece_max, 0, "inconclusive", "not measured")
    found = model.metrics["ece"]
    verdict = _above(-found.high, -found.low, -rules.ece_max)
    return Check("ece", found.value, rules.ece_max, users, verdict, _span(found.low, found.high))


def _slices(slices: tuple[SliceEvidence, ...], rules: Rules) -> list[Check]:
    judged = {part.attribute for part in slices if not part.too_small}
    checks = []
    for part in slices:
        value, low, high = _gain(part, rules.slice_metric)
        name = f"gain in {rules.slice_metric}, {part.attribute}={part.value}"
        verdict, reason = _above(low, high, -rules.slice_loss_max), _span(low, high)
        blocking = True
        if part.too_small:
            reason = f"too small to judge: {part.too_small}"
            blocking = rules.small_slices_block or part.attribute not in judged
        limit = -rules.slice_loss_max
        checks.append(Check(name, value, limit, part.users, verdict, reason, blocking))
    return checks


def _latency(model: ModelEvidence, rules: Rules) -> Check:
    name, limit = "latency_ms_p99", rules.latency_ms_max
    if model.latency is None:
        return Check(name, math.nan, limit, 0, "inconclusive", "not measured")
    value, n = model.latency.ms_p99, model.latency.n
    if not value >= 0 or math.isinf(value):
        return Check(name, value, limit, n, "error", f"{value} ms is no latency")
    if n < LATENCY_N_MIN:
        reason = f"{n} requests (at least {LATENCY_N_MIN} needed)"
        return Check(name, value, limit, n, "inconclusive", reason)
    verdict: Verdict = "pass" if value <= limit else "fail"
    return Check(name, value, limit, n, verdict, f"{value:.3g} ms of {limit:g} ms")
