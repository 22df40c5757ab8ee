"""Rows with a feature in every range and no fault, for tests of the gate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.validate.moments import moments
from pipelines.validate.ranges import RANGES, by_name
from pipelines.validate.reference import Reference, category_of, reference_of_rows
from rankstream.features import spec
from rankstream.features.rows import RECENT

USERS, ITEMS, GENRES = 200, 60, 5
START_MS = 1_700_000_000_000
N = 6_000
AS_OF_MS = START_MS + N * 1_000 + 60_000
CATALOGUE = {f"i{k}": ItemFacts(f"genre{k % GENRES}", {}) for k in range(ITEMS)}


def clean_rows(n: int = N, *, seed: int = 1) -> TrainingRows:
    """Each feature fills the middle half of its range, or 1 to 5 of a wide one; clicks are few."""
    rng = np.random.default_rng(seed)
    features = np.empty((n, spec.WIDTH), np.float32)
    for place, name in enumerate(spec.NAMES):
        low, span = middle(name)
        features[:, place] = low + span * rng.random(n)
    logit = -1.0 + 2.0 * (features[:, spec.NAMES.index("item_ctr")] - 0.5)
    return TrainingRows(
        features=features,
        clicked=(rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.uint8),
        time_ms=START_MS + np.arange(n, dtype=np.int64) * 1_000,
        user=rng.integers(0, USERS, n),
        item=rng.integers(0, ITEMS, n),
        users=tuple(f"u{k}" for k in range(USERS)),
        items=tuple(CATALOGUE),
        recent=np.zeros((n, RECENT), np.uint64),
        purchased=np.zeros(n, np.int8),
        purchases_come=np.ones(n, np.float32),
        position=np.arange(n, dtype=np.int64) % 10,
    )


def middle(name: str) -> tuple[float, float]:
    """Where clean values of a feature start, and how far they reach."""
    allowed = by_name(RANGES, name)
    if math.isclose(allowed.high, 1e6) or math.isclose(allowed.high, 1e9):
        return 1.0, 4.0
    span = (allowed.high - allowed.low) / 2
    return allowed.low + span / 2, span


def with_feature(
    rows: TrainingRows,
    name: str,
    values: float | npt.NDArray[np.floating],
    at: list[int] | npt.NDArray[np.intp] | None = None,
) -> TrainingRows:
    """The rows with other values of one feature, in all rows or some."""
    features = rows.features.copy()
    features[slice(None) if at is None else at, spec.NAMES.index(name)] = values
    return replace(rows, features=features)


def feature(rows: TrainingRows, name: str) -> npt.NDArray[np.float32]:
    """Values of one feature, shape (n,)."""
    return rows.features[:, spec.NAMES.index(name)]


def reference_of(rows: TrainingRows) -> Reference:
    """The reference that these rows leave behind."""
    measured = moments(np.ascontiguousarray(rows.features.T), rows.user, rows.item)
    return reference_of_rows(rows, measured, category_of(rows, CATALOGUE), source="v0")
