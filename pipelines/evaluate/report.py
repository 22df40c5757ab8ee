"""Evidence on paper: a run's figures, and candidates compared, as JSON, Markdown and HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Final

import jinja2
import numpy as np

from pipelines.evaluate import plots
from pipelines.evaluate.comparison import Comparison
from pipelines.evaluate.intervals import Interval
from pipelines.evaluate.judge import Decision
from pipelines.evaluate.slices import (
    HEAD_SHARE,
    NEW_BELOW,
    POWER_FROM,
    SLICE_CLASS_MIN,
    SLICE_IMPRESSIONS_MIN,
    SLICE_USERS_MIN,
    TORSO_SHARE,
)
from pipelines.figures import COLOURS, MARKS

MARKDOWN: Final = "report.md"
JSON: Final = "report.json"
COMPARISON: Final = "comparison"
TEMPLATES: Final = Path(__file__).parent / "templates"


def write_report(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, Interval]],
) -> None:
    """Write a run's figures into `folder`, as Markdown and as JSON.

    Args:
        facts: what the figures rest on: data version, split, rows.
        metrics: model -> metric -> value.
        intervals: model -> metric -> its interval, of the metrics that have one here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {title}", "", *(f"- {name}: {value}" for name, value in facts.items())]
    for model, values in metrics.items():
        lines += ["", f"## {model}", "", "| metric | value | interval |", "| --- | --- | --- |"]
        known = intervals.get(model, {})
        ends = {name: _ends(known[name]) if name in known else "" for name in values}
        lines += [f"| {name} | {value:.5g} | {ends[name]} |" for name, value in values.items()]
    (folder / MARKDOWN).write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = {"title": title, "facts": facts, "metrics": metrics, "intervals": intervals}
    text = json.dumps(_plain(body), indent=1, allow_nan=False)
    (folder / JSON).write_text(text + "\n", encoding="utf-8")


def write_comparison(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    comparison: Comparison,
    decision: Decision,
) -> None:
    """Write comparison.json, .md and .html into `folder`; the page needs no other file.

    Args:
        facts: what the figures rest on: data version, split, command.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forms = {
        "json": comparison_json(title, facts, comparison, decision),
        "md": comparison_markdown(title, facts, comparison, decision),
        "html": comparison_html(title, facts, comparison, decision),
    }
    for suffix, text in forms.items():
        (folder / f"{COMPARISON}.{suffix}").write_text(text, encoding="utf-8")


def comparison_json(
    title: str, facts: Mapping[str, str], comparison: Comparison, decision: Decision
) -> str:
    """Everything measured and decided; an undefined number is null."""
    body = {
        "title": title,
        "facts": facts,
        "decision": decision,
        "comparison": comparison,
        "notes": notes(comparison),
    }
    return json.dumps(_plain(body), indent=1, allow_nan=False) + "\n"


def comparison_markdown(
    title: str, facts: Mapping[str, str], comparison: Comparison, decision: Decision
) -> str:
    """The same as tables."""
    return _render("comparison.md.j2", title, facts, comparison, decision, autoescape=False)


def comparison_html(
    title: str, facts: Mapping[str, str], comparison: Comparison, decision: Decision
) -> str:
    """The same as one page with plots inside."""
    draw: dict[str, Callable[[], object]] = {
        "calibration_plot": partial(plots.calibration_plot, comparison),
        "metric_plot": partial(plots.metric_plot, comparison),
        "forest_plot": partial(plots.forest_plot, comparison, decision.rules),
        "attention_plots": partial(plots.attention_plots, comparison),
    }
    return _render("comparison.html.j2", title, facts, comparison, decision, True, draw)


def notes(comparison: Comparison) -> list[str]:
    """How the figures were made, and the cuts they rest on."""
    draws = comparison.draws
    return [
        f"Intervals: {draws.replicates} bootstrap resamples of the {draws.users} users, each with"
        f" all their impressions (seed {draws.seed}); percentiles, but for ece and mce. Chance"
        " makes a calibration error larger, so their lower end allows for noise of any direction,"
        " and they have no p-value.",
        "p: two-sided, of no difference from the incumbent on the same resamples of users; at"
        f" least {2 / (draws.replicates + 1):.2g} with this many. In the verdict on the primary"
        " metric it is adjusted for the number of candidates (Holm).",
        f"gauc leaves out {comparison.gauc_users_left_out:.1%} of users, whose impressions are all"
        " clicked or all not.",
        f"accuracy, precision and recall predict a click from pctr {comparison.threshold:g} on.",
        f"Items: head are the most shown that hold the first {HEAD_SHARE:.0%} of the training"
        f" impressions, torso up to {TORSO_SHARE:.0%}, tail the rest. Users: new below {NEW_BELOW}"
        f" training impressions, power from {POWER_FROM}.",
        f"A slice below {SLICE_IMPRESSIONS_MIN} impressions, {SLICE_USERS_MIN} users or"
        f" {SLICE_CLASS_MIN} impressions of either class is too small to judge.",
        "AUC lost: the feature's values dealt out anew among some thousand impressions; what two"
        " features both say is lost with neither alone.",
        "These are impressions that another ranker chose: offline figures say which models deserve"
        " an experiment, not what users will do.",
    ]


def _render(
    template: str,
    title: str,
    facts: Mapping[str, str],
    comparison: Comparison,
    decision: Decision,
    autoescape: bool,
    draw: Mapping[str, Callable[[], object]] | None = None,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        figure=_figure, limit=_limit, p=_p, ends=_ends, measured=_measured, cell=_cell
    )
    models = [model for model in comparison.models if not model.error]
    sliced = [part for part in models[0].slices if part.metrics]
    return environment.get_template(template).render(
        title=title,
        facts=facts,
        comparison=comparison,
        decision=decision,
        measured=models,
        metric_names=list(models[0].metrics),
        slices=models[0].slices,
        slice_names=list(sliced[0].metrics) if sliced else [],
        by_slice={
            (model.model, part.attribute, part.value): part
            for model in models
            for part in model.slices
        },
        colours={
            model.model: COLOURS[place % len(COLOURS)]
            for place, model in enumerate(comparison.models)
        },
        marks=MARKS,
        notes=notes(comparison),
        **{name: figure() for name, figure in (draw or {}).items()},
    )


def _figure(value: float) -> str:
    """Four digits, trailing zeros kept: figures of a column compare at a glance."""
    if math.isnan(value):
        return "n/a"
    return "0" if value == 0 else f"{value:#.4g}".rstrip(".")


def _limit(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:g}"


def _p(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2g}"


def _ends(found: Interval) -> str:
    return (
        "no interval" if math.isnan(found.low) else f"{_figure(found.low)} to {_figure(found.high)}"
    )


def _measured(found: Interval) -> str:
    return f"{_figure(found.value)} [{_ends(found)}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: object) -> object:
    """Dataclasses and arrays as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
