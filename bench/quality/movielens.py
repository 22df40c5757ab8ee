"""MovieLens 100K by time: what features are worth that are as fresh as that.

The last tenth of the ratings is the test; 4 and more is a click. The features of each impression
are those of the product, replayed: with all that happened before it (live), before its hour or its
day began, or before the test began (frozen; its training rows are live), rating tables included.
One LightGBM each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure
from bench.quality.scores import figures, scored
from pipelines.datasets.movielens import history, read_ratings
from pipelines.features.replay import ItemFacts, TrainingRows, Windows, training_rows
from pipelines.train.steps import hold_unobserved, split
from pipelines.train.trees import fit_lightgbm

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
# When the last event happened; the intervals between events are those of the log.
UNTIL_MS: Final = 1_790_000_000_000

Times = npt.NDArray[np.int64]


def freshness(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.ml100k.time.{frozen,daily,hourly,live}.{auc,logloss,ece}."""
    log = history(read_ratings(folder), until_ms=UNTIL_MS)
    items = {item.item_id: ItemFacts(item.category, item.attributes) for item in log.items}

    def rows(known_ms: Callable[[Times], Times]) -> TrainingRows:
        windows = Windows()
        until_ms = UNTIL_MS + windows.conversion_window_ms
        found = training_rows(
            log.columns, items, until_ms=until_ms, windows=windows, known_ms=known_ms
        )
        return hold_unobserved(found, log.columns.kind)

    live = rows(lambda time_ms: time_ms)
    _, _, split_ms = split(live)
    regimes: Mapping[str, Callable[[Times], Times]] = {
        "frozen": lambda time_ms: np.minimum(time_ms, split_ms),
        "daily": partial(_floor, step_ms=DAY_MS),
        "hourly": partial(_floor, step_ms=HOUR_MS),
    }
    found = []
    for name, refreshed in (*((n, rows(known)) for n, known in regimes.items()), ("live", live)):
        train, test, _ = split(refreshed)
        scores = scored(
            fit_lightgbm, (train.features, train.clicked), (test.features, test.clicked)
        )
        say(f"movielens by time, {name}: {scores[0]}")
        found += figures(f"quality.ml100k.time.{name}", scores)
    return found


def _floor(time_ms: Times, step_ms: int) -> Times:
    return time_ms // step_ms * step_ms
