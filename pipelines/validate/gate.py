"""Rows pass the gate or nothing is trained: all checks, their report, and a named refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.validate.compare import constant_checks, mean_checks, spread_checks
from pipelines.validate.leakage import (
    FUTURE,
    LEAK,
    feature_time_check,
    leak_checks,
    newest_event_ms,
)
from pipelines.validate.limits import Limits
from pipelines.validate.moments import Moments, moments
from pipelines.validate.population import (
    CATEGORIES,
    CTR,
    FRESHNESS,
    ROWS,
    category_check,
    ctr_checks,
    freshness_check,
    shape_check,
    size_checks,
)
from pipelines.validate.reference import (
    REFERENCE,
    Reference,
    category_of,
    reference_of_rows,
    write_reference,
)
from pipelines.validate.report import HTML, write_report
from pipelines.validate.schema import row_checks
from pipelines.validate.verdicts import Check, Validation, attempt
from rankstream.errors import InvalidInput

_NAMED_MAX: Final = 8


@dataclass(frozen=True, eq=False)
class _Measured:
    """What several checks need of the rows: columns float32, shape (spec.WIDTH, n)."""

    rows: TrainingRows
    columns: npt.NDArray[np.float32]
    moments: Moments
    categories: tuple[str, ...]


def validate(
    rows: TrainingRows,
    items: Mapping[str, ItemFacts],
    *,
    as_of_ms: int,
    reference: Reference | None = None,
    limits: Limits | None = None,
) -> Validation:
    """Ask everything of the rows; nothing is raised and nothing is written.

    Args:
        items: item_id -> facts, for categories.
        as_of_ms: when the rows are to be fresh.
        reference: rows that were good, as champion_reference finds them.
    """
    return _ask(rows, items, as_of_ms, reference, limits or Limits())[0]


def gate(
    rows: TrainingRows,
    items: Mapping[str, ItemFacts],
    folder: Path,
    *,
    data_version: str,
    as_of_ms: int,
    reference: Reference | None,
    limits: Limits | None = None,
) -> Validation:
    """Let good rows pass; of them `folder`/<data_version> then also holds the next reference.

    Args:
        folder: of all validations; the report goes below it.
        data_version: of the rows, as pipelines.train.artefact has it; others as in validate().

    Raises: InvalidInput: a check failed or could not run; names them and the report.
    """
    found, measured = _ask(rows, items, as_of_ms, reference, limits or Limits())
    place = folder / data_version
    write_report(place, found, rows, reference, data_version=data_version)
    if found.verdict != "pass" or measured is None:
        raise _refused(found, place / HTML)
    passed = reference_of_rows(rows, measured.moments, measured.categories, source=data_version)
    write_reference(place / REFERENCE, passed)
    return found


def _ask(
    rows: TrainingRows,
    items: Mapping[str, ItemFacts],
    as_of_ms: int,
    reference: Reference | None,
    limits: Limits,
) -> tuple[Validation, _Measured | None]:
    """The answers, and what was measured of rows that have a shape at all."""
    checks = [shape_check(rows)]
    source = reference.source if reference is not None else ""
    measured = None
    if checks[0].verdict == "pass" and len(rows):
        measured = _measured(rows, items)
        checks += _whole(measured, as_of_ms, reference, limits)
        checks += _by_feature(measured, reference, limits)
    elif checks[0].verdict == "pass":
        checks += size_checks(rows, limits)
    return Validation(tuple(checks), len(rows), as_of_ms, source), measured


def _measured(rows: TrainingRows, items: Mapping[str, ItemFacts]) -> _Measured:
    columns = np.ascontiguousarray(rows.features.T)
    return _Measured(
        rows, columns, moments(columns, rows.user, rows.item), category_of(rows, items)
    )


def _whole(
    measured: _Measured,
    as_of_ms: int,
    reference: Reference | None,
    limits: Limits,
) -> list[Check]:
    rows, n = measured.rows, len(measured.rows)

    def feature_times() -> list[Check]:
        return [feature_time_check(newest_event_ms(rows.features, rows.time_ms), rows.time_ms)]

    return [
        *attempt(ROWS, lambda: size_checks(rows, limits), n),
        *attempt(FRESHNESS, lambda: [freshness_check(rows, as_of_ms, limits)], n),
        *attempt(CTR, lambda: ctr_checks(rows, reference, limits), n),
        *attempt(
            CATEGORIES,
            lambda: [category_check(rows, measured.categories, reference, limits)],
            n,
        ),
        *attempt(FUTURE, feature_times, n),
    ]


def _by_feature(measured: _Measured, reference: Reference | None, limits: Limits) -> list[Check]:
    """A feature is named for its first fault: what is nan has no mean to compare."""
    rows, columns, n = measured.rows, measured.columns, len(measured.rows)
    stages = (
        ("schema", lambda skip: row_checks(columns, rows)),
        ("constant", lambda skip: constant_checks(columns, measured.moments, reference, skip)),
        (LEAK, lambda skip: leak_checks(columns, rows, limits, skip)),
        ("mean", lambda skip: mean_checks(columns, measured.moments, reference, limits, skip)),
        ("spread", lambda skip: spread_checks(columns, measured.moments, reference, limits, skip)),
    )
    checks: list[Check] = []
    for name, ask in stages:
        blamed = frozenset(check.subject for check in checks if check.verdict == "fail")
        checks += attempt(name, partial(ask, blamed), n)
    return checks


def _refused(found: Validation, report: Path) -> InvalidInput:
    wrong = (*found.having("fail"), *found.having("error"))
    named = "; ".join(f"{check.title}: {check.found}" for check in wrong[:_NAMED_MAX])
    more = f"; and {len(wrong) - _NAMED_MAX} more" if len(wrong) > _NAMED_MAX else ""
    return InvalidInput(
        f"invalid_input: {found.n} rows failed {len(wrong)} of {len(found.checks)} checks:"
        f" {named}{more}. Nothing was trained. See {report}, mend the rows."
    )
