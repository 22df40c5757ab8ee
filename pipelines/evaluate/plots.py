"""Figures of the comparison report as inline SVG: models differ in colour and in marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pipelines.evaluate.comparison import Comparison, ModelEvidence
from pipelines.evaluate.importance import Attention
from pipelines.evaluate.judge import Rules
from pipelines.evaluate.weighted import METRICS
from pipelines.figures import COLOURS, FRAME, QUIET, STYLE, svg

MARKERS: Final = ("o", "s", "D", "^", "v", "P", "X")
SHOWN_METRICS: Final = (
    "auc",
    "gauc",
    "log_loss",
    "normalised_entropy",
    "ece",
    "mce",
    "ndcg_at_5",
    "ndcg_at_10",
    "map_at_5",
)
SHOWN_FEATURES: Final = 12


def calibration_plot(comparison: Comparison) -> str:
    """Observed over predicted click rate of every model, and how pctr is spread, as SVG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.subplots()
        top = 0.0
        for place, model in _measured(comparison):
            if model.curve is None:
                continue
            top = max(top, model.curve.predicted.max(), model.curve.observed.max())
            # Binomial and of rows: a guide to the eye, the verdict rests on the interval of ECE.
            error = np.sqrt(model.curve.observed * (1 - model.curve.observed) / model.curve.n)
            axes.errorbar(
                model.curve.predicted,
                model.curve.observed,
                yerr=1.96 * error,
                color=_colour(place),
                marker=_marker(place),
                markersize=5,
                linewidth=1.4,
                elinewidth=0.9,
                capsize=0,
                label=model.model,
            )
        limit = min(1.0, top * 1.08) or 1.0
        axes.plot([0, limit], [0, limit], color=FRAME, linestyle="--", linewidth=1, zorder=1)
        axes.annotate(
            "perfect",
            (limit * 0.93, limit * 0.93),
            (-6, 8),
            textcoords="offset points",
            ha="right",
            color=QUIET,
        )
        axes.set(
            xlim=(0, limit),
            ylim=(0, None),
            xlabel="mean pctr of the bin",
            ylabel="observed click rate",
        )
        axes.legend(loc="upper left")
        return svg(figure, "Calibration: observed click rate over mean pctr, by model")


def metric_plot(comparison: Comparison) -> str:
    """One panel per metric: every model's value and interval, on a scale of its own, as SVG."""
    models = _measured(comparison)
    names = [name for name in SHOWN_METRICS if name in models[0][1].metrics]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with mpl.rc_context(STYLE):
        height = rows * (0.95 + 0.3 * len(models))
        layout = ConstrainedLayoutEngine(wspace=0.06, hspace=0.08)
        figure = Figure(figsize=(10.4, height), layout=layout)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, name in zip(panels.flat, names, strict=False):
            _metric_panel(axes, name, models)
        for axes in panels.flat[len(names) :]:
            axes.set_visible(False)
        panels[0][0].set_yticks(range(len(models)), [model.model for _, model in models])
        panels[0][0].set_ylim(len(models) - 0.5, -0.5)
        return svg(figure, "Metrics of every model with their intervals")


def _metric_panel(axes: Axes, name: str, models: Sequence[tuple[int, ModelEvidence]]) -> None:
    for row, (place, model) in enumerate(models):
        found = model.metrics[name]
        axes.plot(
            [found.low, found.high],
            [row, row],
            color=_colour(place),
            linewidth=2.2,
            solid_capstyle="round",
        )
        axes.plot(
            [found.value],
            [row],
            color=_colour(place),
            marker=_marker(place),
            markersize=6.5,
            markeredgecolor="white",
        )
    better = {1: "higher is better", -1: "lower is better", 0: "best at 1"}[METRICS[name].better]
    axes.set_title(name, fontsize=9.5)
    axes.set_title(better, loc="right", fontsize=7.5, fontweight="normal", color=QUIET)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def forest_plot(comparison: Comparison, rules: Rules) -> str:
    """Gain of every candidate over the incumbent, on the whole and in each slice, as SVG; "" if
    there are neither candidates nor slices.
    """
    candidates = [(k, model) for k, model in _measured(comparison) if model.against]
    if not candidates or not candidates[0][1].slices:
        return ""
    metric = rules.slice_metric
    parts = candidates[0][1].slices
    labels = [f"all impressions  (n={comparison.impressions:,})"]
    labels += [f"{part.attribute} = {part.value}  (n={part.n:,})" for part in parts]
    step = 0.72 / max(1, len(candidates))
    with mpl.rc_context(STYLE):
        height = 1.3 + len(labels) * max(0.36, 0.17 * len(candidates))
        figure = Figure(figsize=(10.4, height), layout="constrained")
        axes = figure.subplots()
        for index, (place, model) in enumerate(candidates):
            shift = (index - (len(candidates) - 1) / 2) * step
            _forest_column(axes, model, place, shift, metric)
        _forest_frame(axes, labels, -rules.slice_loss_max, f"gain in {metric} over the incumbent")
        for row, part in enumerate(parts, 1):
            if part.too_small:
                axes.annotate(
                    "too small to judge",
                    (0, row),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                    color=QUIET,
                    fontsize=9,
                    fontstyle="italic",
                )
        return svg(figure, f"Gain in {metric} over the incumbent, by slice")


def _forest_column(axes: Axes, model: ModelEvidence, place: int, shift: float, metric: str) -> None:
    sign = METRICS[metric].better
    gaps = [model.against.get(metric), *(part.against.get(metric) for part in model.slices)]
    for row, gap in enumerate(gaps):
        if gap is None:
            continue
        ends, level = [sign * gap.low, sign * gap.high], [row + shift] * 2
        axes.plot(ends, level, color=_colour(place), linewidth=2.0, solid_capstyle="round")
        axes.plot(
            [sign * gap.value],
            level[:1],
            color=_colour(place),
            linestyle="none",
            marker=_marker(place),
            markersize=6,
            markeredgecolor="white",
            label=model.model if row == 0 else None,
        )


def _forest_frame(axes: Axes, labels: list[str], limit: float, quantity: str) -> None:
    axes.axvline(0, color="#30343b", linewidth=1)
    axes.axvline(limit, color="#a0142e", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.axhline(0.5, color="#c9ced6", linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"{quantity} (right of 0 is better, dashed: limit {limit:g})")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)


def attention_plots(comparison: Comparison) -> dict[str, str]:
    """Of each model, what it loses without a feature and how pctr follows the first few, as SVG."""
    return {
        model.model: _attention(model.model, model.attention, _colour(place))
        for place, model in _measured(comparison)
        if model.attention is not None
    }


def _attention(model: str, found: Attention, colour: str) -> str:
    shown = found.importances[:SHOWN_FEATURES]
    sizes = [one.shap for one in shown if one.shap is not None]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.4), layout="constrained")
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.0, 1.35))[0]
        axes = left.subplots(1, 2 if sizes else 1, sharey=True, squeeze=False)[0]
        places = np.arange(len(shown))
        lost = [one.auc_lost for one in shown]
        axes[0].barh(places, lost, 0.66, xerr=[one.spread for one in shown], color=colour)
        axes[0].set_yticks(places, [one.feature for one in shown], fontsize=8.5)
        axes[0].set_ylim(len(shown) - 0.4, -0.6)
        axes[0].set_xlabel("AUC lost without it", fontsize=9)
        if sizes:
            axes[1].barh(places, sizes, 0.66, color=colour)
            axes[1].set_xlabel("mean |SHAP|, logit", fontsize=9)
        for one in axes:
            one.grid(axis="y", visible=False)
            one.tick_params(axis="y", length=0)
            one.locator_params(axis="x", nbins=3 if sizes else 4)
        panels = right.subplots(2, 3, sharey=True)
        for panel, one in zip(panels.flat, found.dependences, strict=False):
            panel.plot(one.value, one.pctr, color=colour, linewidth=1.8)
            panel.set_title(one.feature, fontsize=7.5)
            panel.tick_params(labelsize=8)
            panel.locator_params(axis="x", nbins=3)
        for panel in panels.flat[len(found.dependences) :]:
            panel.set_visible(False)
        right.supylabel("mean pctr", fontsize=9)
        return svg(figure, f"What {model} looks at")


def _measured(comparison: Comparison) -> list[tuple[int, ModelEvidence]]:
    """Models with figures, each with its place: colour and marker are the same in all plots."""
    return [(k, model) for k, model in enumerate(comparison.models) if not model.error]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]
