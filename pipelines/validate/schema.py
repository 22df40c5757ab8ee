"""Row by row: finite, in range, labels 0 or 1. A pandera schema over views of the arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from pipelines.features.replay import TrainingRows
from pipelines.validate.ranges import RANGES, Range, by_name
from pipelines.validate.verdicts import ROWS_NAMED, Check
from rankstream.features import spec

Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.float32]

FINITE: Final = "finite"
RANGE: Final = "range"
LABEL: Final = "label"
CLICKED: Final = "clicked"


def outside(values: Column, allowed: Range) -> Mask:
    """Which finite values, shape (n,), lie outside; those above only if they are too many.

    >>> outside(np.array([-1.0, 0.5, 2.0, np.nan], np.float32), Range(0, 1, unknown=-1)).tolist()
    [False, False, True, False]
    """
    # Comparisons with nan are false: what is not finite is another check's to name.
    below, above = values < allowed.low, values > allowed.high
    above &= values != np.inf
    below &= values != -np.inf
    if allowed.above_share_max and above.mean() <= allowed.above_share_max:
        above[:] = False
    bad: Mask = below | above
    if allowed.unknown is not None:
        bad &= values != np.float32(allowed.unknown)
    return bad


def row_checks(columns: Column, rows: TrainingRows) -> list[Check]:
    """A check per feature that is at fault, and one of each kind for all the others.

    Args:
        columns: shape (spec.WIDTH, n), contiguous: the transpose of rows.features.

    Raises: LookupError: a feature has no range.
    """
    n = len(rows)
    frame = pd.DataFrame(columns.T, columns=list(spec.NAMES), copy=False)
    frame[CLICKED] = rows.clicked
    named: dict[tuple[str, str], list[int]] = {}
    broken: list[Check] = []
    try:
        _schema().validate(frame, lazy=True, inplace=True)
    except SchemaErrors as errors:
        for error in errors.schema_errors:
            if error.reason_code != SchemaErrorReason.DATAFRAME_CHECK:
                broken.append(_not_run(error, n))
                continue
            cases = error.failure_cases["index"].to_list()
            named[str(error.check.name), str(error.schema.name)] = cases
    checks = broken
    for kind in (FINITE, RANGE, LABEL):
        subjects = [subject for name, subject in named if name == kind]
        checks += [_fault(kind, s, columns, rows, named[kind, s]) for s in subjects]
        whole = len(spec.NAMES) - len(subjects)
        if kind == LABEL and not subjects:
            checks.append(Check(LABEL, "pass", 0.0, "0 or 1", n, "every label is 0 or 1"))
        elif kind != LABEL and whole:
            words = f"{whole} features in every row"
            threshold = "not nan, not infinite" if kind == FINITE else "a range per feature"
            checks.append(Check(kind, "pass", 0.0, threshold, n, words))
    return checks


def _schema() -> pa.DataFrameSchema:
    columns = {
        name: pa.Column(
            "float32",
            [
                _check(FINITE, np.isfinite),
                _check(RANGE, partial(_inside, allowed=by_name(RANGES, name))),
            ],
            # Null is not finite: one check names it, in one place.
            nullable=True,
        )
        for name in spec.NAMES
    }
    label = pa.Column(None, _check(LABEL, lambda values: (values == 0) | (values == 1)))
    return pa.DataFrameSchema({**columns, CLICKED: label})


def _check(name: str, holds: Callable[[Any], Any]) -> pa.Check:
    # Without the limit pandera makes a row of text for each offending cell.
    return pa.Check(holds, name=name, ignore_na=False, n_failure_cases=ROWS_NAMED)


def _inside(values: Any, *, allowed: Range) -> Any:
    return pd.Series(~outside(values.to_numpy(), allowed), index=values.index)


def _not_run(error: SchemaError, n: int) -> Check:
    problem = f"could not run: {str(error)[:200]}"
    subject = str(getattr(error.schema, "name", "") or "")
    return Check("schema", "error", None, "", n, problem, subject=subject)


def _fault(kind: str, subject: str, columns: Column, rows: TrainingRows, first: list[int]) -> Check:
    """How many rows are at fault: pandera was asked for the first few only."""
    values: npt.NDArray[Any]
    if kind == LABEL:
        values, threshold = np.asarray(rows.clicked), "0 or 1"
        bad: Mask = ~np.isin(values, (0, 1))
    elif kind == FINITE:
        values, threshold = columns[spec.NAMES.index(subject)], "not nan, not infinite"
        bad = ~np.isfinite(values)
    else:
        allowed = by_name(RANGES, subject)
        values, threshold = columns[spec.NAMES.index(subject)], str(allowed)
        bad = outside(values, allowed)
    count = int(bad.sum())
    sample = ", ".join(f"{values[row]:g} in row {row}" for row in first[:3])
    return Check(
        kind,
        "fail",
        float(count),
        threshold,
        len(rows),
        f"{count} of {len(rows)} rows: {sample}",
        subject="" if kind == LABEL else subject,
        rows=tuple(first),
    )
