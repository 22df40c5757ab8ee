"""Candidates beside the incumbent on the same held-out impressions: the values that are judged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.importance import Attention
from pipelines.evaluate.impressions import Doubles, Impressions, probabilities, refusal
from pipelines.evaluate.intervals import (
    LEVEL,
    Difference,
    Draws,
    Interval,
    Resampled,
    difference,
    interval,
    resample,
)
from pipelines.evaluate.metrics import THRESHOLD, CalibrationCurve, calibration_curve
from pipelines.evaluate.slices import Slice, slices_of
from pipelines.evaluate.weighted import (
    METRICS,
    Metric,
    Statistic,
    statistics,
    threshold_metrics,
)
from rankstream.errors import InvalidInput

SLICE_METRICS: Final = ("auc", "log_loss", "calibration")


@dataclass(frozen=True)
class Latency:
    """99th percentile of the time to score one request, and how many requests it rests on."""

    ms_p99: float
    n: int


@dataclass(frozen=True)
class SliceEvidence:
    """A model on one slice; no metrics where `too_small` says why."""

    attribute: str
    value: str
    n: int
    users: int
    clicks: int
    too_small: str
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    against: Mapping[str, Difference] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ModelEvidence:
    """All that was measured of a model.

    `against`: paired differences from the incumbent, by metric, empty for the incumbent. `error`:
    why nothing could be measured, else "".
    """

    model: str
    metrics: Mapping[str, Interval] = field(default_factory=dict)
    against: Mapping[str, Difference] = field(default_factory=dict)
    curve: CalibrationCurve | None = None
    slices: tuple[SliceEvidence, ...] = ()
    latency: Latency | None = None
    attention: Attention | None = None
    error: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models on the same impressions, the incumbent first."""

    incumbent: str
    models: tuple[ModelEvidence, ...]
    impressions: int
    users: int
    clicks: int
    gauc_users_left_out: float
    threshold: float
    draws: Draws
    level: float

    def of(self, model: str) -> ModelEvidence:
        return next(evidence for evidence in self.models if evidence.model == model)


def compare(
    impressions: Impressions,
    pctr: Mapping[str, npt.ArrayLike],
    *,
    incumbent: str,
    slices: Mapping[str, npt.ArrayLike] | None = None,
    latency: Mapping[str, Latency] | None = None,
    attention: Mapping[str, Attention] | None = None,
    slice_metrics: Sequence[str] = SLICE_METRICS,
    threshold: float = THRESHOLD,
    replicates: int = 1_000,
    seed: int = 1,
    level: float = LEVEL,
) -> Comparison:
    """Measure every model, pair every other one with the incumbent.

    Args:
        pctr: model -> predictions, shape (n,); a model whose predictions are invalid gets an
            `error` and the others are measured.
        incumbent: the model that serves now, or the baseline to beat.
        slices: attribute -> its value at each impression, shape (n,).
        latency: model -> its latency.
        attention: model -> what it looks at.
        slice_metrics: names out of `METRICS`, measured in each slice.

    Raises: InvalidInput: the incumbent is absent or its predictions are invalid; a slice column or
        metric is.
    """
    valid, errors = _valid(pctr, len(impressions), incumbent)
    plan = _plan(impressions, slices or {}, tuple(slice_metrics), threshold, level)
    draws = Draws(impressions.users, replicates, seed)
    found = plan.resampled(valid, draws)
    timed, looked = latency or {}, attention or {}
    evidence = [
        replace(
            plan.evidence(found, model, incumbent, valid[model]),
            latency=timed.get(model),
            attention=looked.get(model),
        )
        if model in valid
        else ModelEvidence(model, error=errors[model])
        for model in (incumbent, *(name for name in pctr if name != incumbent))
    ]
    return Comparison(
        incumbent=incumbent,
        models=tuple(evidence),
        impressions=len(impressions),
        users=impressions.users,
        clicks=int(impressions.clicked.sum()),
        gauc_users_left_out=_one_class(impressions),
        threshold=threshold,
        draws=draws,
        level=level,
    )


_Key = tuple[str, int, str]
_Measured = dict[str, Interval]
_WHOLE: Final = -1


@dataclass(frozen=True, eq=False)
class _Plan:
    impressions: Impressions
    parts: list[Slice]
    metrics: Mapping[str, Metric]
    slice_metrics: tuple[str, ...]
    level: float

    def statistics(self, pctr: Doubles) -> dict[tuple[int, str], Statistic]:
        """Of the whole sample (slice -1) and of each slice that is large enough."""
        sliced = {name: self.metrics[name] for name in self.slice_metrics}
        samples = {_WHOLE: statistics(self.metrics, self.impressions, pctr)} | {
            index: statistics(sliced, self.impressions.take(part.rows), pctr[part.rows])
            for index, part in enumerate(self.parts)
            if not part.too_small
        }
        return {
            (index, name): one for index, found in samples.items() for name, one in found.items()
        }

    def resampled(self, pctr: Mapping[str, Doubles], draws: Draws) -> dict[_Key, Resampled]:
        """All models and slices on the same resamples, drawn once."""
        return resample(
            {
                (model, *key): statistic
                for model, predicted in pctr.items()
                for key, statistic in self.statistics(predicted).items()
            },
            draws,
        )

    def measured(self, found: Mapping[_Key, Resampled], model: str, part: int) -> _Measured:
        """Interval of each metric of a model on a slice, or on the whole."""
        names = self.metrics if part == _WHOLE else self.slice_metrics
        return {name: interval(found[model, part, name], level=self.level) for name in names}

    def paired(
        self, found: Mapping[_Key, Resampled], model: str, incumbent: str, part: int
    ) -> dict[str, Difference]:
        """Difference from the incumbent in each metric that can be subtracted."""
        names = self.metrics if part == _WHOLE else self.slice_metrics
        return {
            name: difference(
                found[model, part, name], found[incumbent, part, name], level=self.level
            )
            for name in names
            if self.metrics[name].paired and model != incumbent
        }

    def evidence(
        self, found: Mapping[_Key, Resampled], model: str, incumbent: str, pctr: Doubles
    ) -> ModelEvidence:
        """What the resamples say of one model."""
        slices = tuple(
            SliceEvidence(
                part.attribute,
                part.value,
                part.n,
                part.users,
                part.clicks,
                part.too_small,
                {} if part.too_small else self.measured(found, model, index),
                {} if part.too_small else self.paired(found, model, incumbent, index),
            )
            for index, part in enumerate(self.parts)
        )
        return ModelEvidence(
            model,
            metrics=self.measured(found, model, _WHOLE),
            against=self.paired(found, model, incumbent, _WHOLE),
            curve=calibration_curve(self.impressions.clicked, pctr),
            slices=slices,
        )


def _plan(
    impressions: Impressions,
    slices: Mapping[str, npt.ArrayLike],
    slice_metrics: tuple[str, ...],
    threshold: float,
    level: float,
) -> _Plan:
    metrics = {
        name: metric
        for name, metric in {**METRICS, **threshold_metrics(threshold)}.items()
        if impressions.query is not None or metric.of_lists is None
    }
    unknown = [name for name in slice_metrics if name not in metrics]
    if unknown:
        raise refusal(f"slice metrics {unknown} are none of {sorted(metrics)}", "Name others.")
    return _Plan(impressions, slices_of(impressions, slices), metrics, slice_metrics, level)


def _valid(
    pctr: Mapping[str, npt.ArrayLike], n: int, incumbent: str
) -> tuple[dict[str, Doubles], dict[str, str]]:
    if incumbent not in pctr:
        raise refusal(f"incumbent {incumbent!r} is none of {sorted(pctr)}", "Predict with it too.")
    valid: dict[str, Doubles] = {}
    errors: dict[str, str] = {}
    for model, predicted in pctr.items():
        try:
            valid[model] = probabilities(predicted, n)
        except InvalidInput as error:
            if model == incumbent:
                raise
            errors[model] = str(error)
    return valid, errors


def _one_class(impressions: Impressions) -> float:
    """Share of users whose impressions were all clicked or all not: gAUC leaves them out."""
    n = np.bincount(impressions.user, minlength=impressions.users)
    clicks = np.bincount(impressions.user, impressions.clicked, impressions.users)
    return float(np.mean((clicks == 0) | (clicks == n))) if len(n) else math.nan
