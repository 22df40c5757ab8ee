"""The gate's evidence: one page of HTML that needs nothing else, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipelines.features.replay import TrainingRows
from pipelines.figures import MARKS
from pipelines.validate.figures import histogram_svg
from pipelines.validate.files import write_whole
from pipelines.validate.ranges import RANGES, by_name
from pipelines.validate.reference import Reference
from pipelines.validate.verdicts import Check, Validation
from rankstream.features import spec
from rankstream.monitoring.drift import Verdict
from rankstream.monitoring.histogram import decode_histogram

HTML: Final = "validation.html"
JSON: Final = "validation.json"
FIGURES_MAX: Final = 12
_TEMPLATE: Final = "report.html.jinja"
# Trouble first.
_ORDER: Final[tuple[Verdict, ...]] = ("fail", "error", "inconclusive", "pass")


def write_report(
    folder: Path,
    found: Validation,
    rows: TrainingRows,
    reference: Reference | None,
    *,
    data_version: str,
) -> None:
    """Write both forms into `folder`, each whole or not at all.

    Raises: OSError.
    """
    write_whole(folder / HTML, as_html(found, rows, reference, data_version=data_version))
    write_whole(folder / JSON, as_json(found, data_version=data_version))


def as_json(found: Validation, *, data_version: str) -> str:
    """All checks in the order in which they were asked; a value that is not a number is null."""
    checks = [asdict(check) for check in found.checks]
    body = {
        "verdict": found.verdict,
        "data_version": data_version,
        "rows": found.n,
        "as_of_ms": found.as_of_ms,
        "reference": found.reference or None,
        "spec_id": spec.SPEC_ID,
        "checks": checks,
    }
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def as_html(
    found: Validation, rows: TrainingRows, reference: Reference | None, *, data_version: str
) -> str:
    """The page; at most FIGURES_MAX features are drawn."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    failed = [check for check in found.having("fail") if check.subject in spec.NAMES]
    facts = {
        "Data version": data_version,
        "Rows": f"{found.n:,}",
        "Window": _window(rows),
        "As of": _utc(found.as_of_ms),
        "Compared with": found.reference or "nothing: no champion of this spec",
        "Feature spec": spec.SPEC_ID,
    }
    page: str = environment.get_template(_TEMPLATE).render(
        verdict=found.verdict,
        counts={verdict: len(found.having(verdict)) for verdict in _ORDER},
        facts=facts,
        checks=[check for verdict in _ORDER for check in found.having(verdict)],
        figures=[(check, _figure(check, rows, reference)) for check in failed[:FIGURES_MAX]],
        left_out=max(0, len(failed) - FIGURES_MAX),
        marks=MARKS,
        shown=shown,
    )
    return page


def shown(value: float | None) -> str:
    """A measured value for people.

    >>> shown(None), shown(0.0), shown(1234567.0), shown(0.123456)
    ('n/a', '0', '1,234,567', '0.1235')
    """
    if value is None:
        return "n/a"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def _figure(check: Check, rows: TrainingRows, reference: Reference | None) -> Markup:
    stored = reference.histograms.get(check.subject) if reference is not None else None
    svg = histogram_svg(
        rows.features[:, spec.NAMES.index(check.subject)],
        by_name(RANGES, check.subject),
        decode_histogram(stored) if stored is not None else None,
        title=check.title,
        source=f"reference {reference.source}" if reference is not None else "",
    )
    return Markup(svg)


def _window(rows: TrainingRows) -> str:
    if not len(rows) or rows.time_ms.shape != (len(rows),):
        return "none"
    return f"{_utc(int(rows.time_ms.min()))} to {_utc(int(rows.time_ms.max()))}"


def _utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
