"""Rows to evaluated, parity-checked artefacts. Nothing is written unless every model passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison, compare
from pipelines.evaluate.importance import attention
from pipelines.evaluate.impressions import Impressions
from pipelines.evaluate.intervals import Interval
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.evaluate.retrieval import retrieval_metrics, retrieved
from pipelines.evaluate.slices import earlier_impressions, item_popularity, user_activity
from pipelines.features.replay import ItemFacts, TrainingRows
from pipelines.train.artefact import (
    Origin,
    data_version,
    ranker_latency,
    ranker_parity,
    tower_parity,
    write_ranker,
    write_retrieval,
)
from pipelines.train.calibration import Method, fit_calibrated
from pipelines.train.corrections import UNCORRECTED, Corrections, fit_corrected
from pipelines.train.rankers import (
    Floats,
    Labels,
    Parameters,
    Ranker,
    check_rows,
    fit_logistic_regression,
)
from pipelines.train.retrieval import Retriever, Towers
from pipelines.train.sources import TowerFamily, fit_sources
from pipelines.train.trees import fit_lightgbm, fit_random_forest, fit_xgboost
from rankstream.adapters.artifacts import Artifact
from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.features import spec

Rows = npt.NDArray[np.int64]

TEST_SHARE: Final = 0.1
CANDIDATES: Final = 500
STEPS: Final = 4  # retrieval, champion, challenger, artefacts
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"


class Family(StrEnum):
    """Rankers that can be trained."""

    LOGISTIC_REGRESSION = "logistic_regression"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    RANDOM_FOREST = "random_forest"


FITS: Final[Mapping[Family, Callable[..., Ranker]]] = {
    Family.LOGISTIC_REGRESSION: fit_logistic_regression,
    Family.XGBOOST: fit_xgboost,
    Family.LIGHTGBM: fit_lightgbm,
    Family.RANDOM_FOREST: fit_random_forest,
}


@dataclass(frozen=True)
class Trained:
    """Artefacts by (alias, artefact), their metrics by name, and the split in epoch ms."""

    artifacts: list[tuple[str, Artifact]]
    metrics: dict[str, dict[str, float]]
    data_version: str
    split_ms: int
    train_rows: int
    test_rows: int
    comparison: Comparison  # of the rankers on the test rows, the champion first
    retrieval: Mapping[str, Interval]  # its metrics on the test's likes


def split(rows: TrainingRows) -> tuple[TrainingRows, TrainingRows, int]:
    """Training rows, test rows and the moment between: the last tenth by time is the test."""
    cut_ms = int(rows.time_ms[min(len(rows) - 1, round(len(rows) * (1 - TEST_SHARE)))])
    before = rows.time_ms < cut_ms
    return rows.take(np.flatnonzero(before)), rows.take(np.flatnonzero(~before)), cut_ms


def hold_unobserved(rows: TrainingRows, kinds: npt.NDArray[np.uint8]) -> TrainingRows:
    """The rows with conversion rates at their defaults if the log has no purchase.

    A smoothed rate of what never happened tells its denominator and nothing else; a model that
    learned from it is thrown off by the first purchase that it sees.
    """
    if np.any(kinds == Kind.PURCHASE):
        return rows
    features = rows.features.copy()
    for column, feature in enumerate(spec.FEATURES):
        if feature.name.endswith("_cvr"):
            features[:, column] = feature.default
    return replace(rows, features=features)


def _checked_split(rows: TrainingRows) -> tuple[TrainingRows, TrainingRows, int]:
    check_rows(rows.features, rows.clicked)
    parts = split(rows)
    check_rows(parts[1].features, parts[1].clicked)
    return parts


def train(
    rows: TrainingRows,
    catalogue: Mapping[str, ItemFacts],
    root: Path,
    *,
    created_ms: int,
    seed: int,
    step: Callable[[str, int, int], None],
    champion: Family = Family.LOGISTIC_REGRESSION,
    challenger: Family = Family.XGBOOST,
    negatives: float = 1.0,
    retrieval: TowerFamily = TowerFamily.PURE_SVD,
    corrections: Corrections = UNCORRECTED,
    calibration: Method = Method.BEST,
    tuned: Mapping[Family, Parameters] | None = None,
) -> Trained:
    """Fit, check, evaluate, write.

    Args:
        catalogue: item_id -> facts of all items, those without a row too.
        champion, challenger: who gets these aliases.
        retrieval: towers of the index; the lists beside it are always fitted.
        negatives: share of impressions without a click that rankers are fitted on, in (0, 1].
        corrections: of where and how often rows were shown.
        calibration: of the rankers, on the last training rows.
        tuned: parameters of families, as a search has found them.
        root: folder of artefacts.
        step: hears ("models", steps done, steps in all).

    Raises: InvalidInput, InvalidArtifact, Conflict; nothing is registered then.
    """
    train_rows, test_rows, split_ms = _checked_split(rows)
    origin = Origin(created_ms, data_version(rows), int(rows.time_ms[0]), split_ms)
    step("models", 0, STEPS)
    item_id = tuple(dict.fromkeys((*rows.items, *sorted(catalogue))))
    categories = {name: facts.category for name, facts in catalogue.items()}
    towers, tables = fit_sources(retrieval, train_rows, item_id, categories, seed=seed)
    tower_gap = tower_parity(towers, seed=seed)
    lists = _lists_metrics(towers, tables, categories, train_rows, test_rows, seed=seed)
    recall = {name: one.value for name, one in lists.items()} | {"items": float(len(item_id))}
    rankers, pctr, latency, looks = [], {}, {}, {}
    families = ((CHAMPION, champion), (CHALLENGER, challenger))
    for done, (alias, family) in enumerate(families, 1):
        step("models", done, STEPS)
        parameters = (tuned or {}).get(family)
        fit = FITS[family] if parameters is None else partial(FITS[family], tuned=parameters)
        ranker = _fit(fit, train_rows, corrections, calibration, negatives=negatives, seed=seed)
        gap = ranker_parity(ranker, rows.features, seed=seed)
        name = f"{ranker.family} ({alias})"
        pctr[name] = ranker.predict(test_rows.features)
        latency[name] = ranker_latency(ranker, test_rows.features, seed=seed)
        looks[name] = attention(
            ranker.predict, test_rows.features, test_rows.clicked, spec.NAMES, seed=seed
        )
        metrics = ranker_metrics(test_rows.clicked, pctr[name], test_rows.user)
        rankers.append((alias, ranker, gap, metrics))
    step("models", STEPS - 1, STEPS)
    artifacts = [
        (alias, write_ranker(root, ranker, train_rows, origin, metrics=metrics, parity=gap))
        for alias, ranker, gap, metrics in rankers
    ]
    index = write_retrieval(root, towers, tables, origin, metrics=recall, parity=tower_gap)
    step("models", STEPS, STEPS)
    return Trained(
        artifacts=[*artifacts, (CHAMPION, index)],
        metrics={alias: metrics for alias, _, _, metrics in rankers} | {"retrieval": recall},
        data_version=origin.data_version,
        split_ms=split_ms,
        train_rows=len(train_rows),
        test_rows=len(test_rows),
        comparison=compare(
            Impressions.of(test_rows.clicked, test_rows.user),
            pctr,
            incumbent=next(iter(pctr)),
            slices=_slices(train_rows, test_rows),
            latency=latency,
            attention=looks,
            seed=seed,
        ),
        retrieval=lists,
    )


def _fit(
    fit: Callable[..., Ranker],
    rows: TrainingRows,
    corrections: Corrections,
    calibration: Method,
    *,
    negatives: float,
    seed: int,
) -> Ranker:
    def of_first(features: Floats, clicked: Labels, *, seed: int) -> Ranker:
        # Calibration fits on all rows, and on the first of them.
        part = rows.take(np.arange(len(clicked)))
        return fit_corrected(fit, part, corrections, negatives=negatives, seed=seed)

    return fit_calibrated(of_first, rows.features, rows.clicked, method=calibration, seed=seed)


def _slices(train_rows: TrainingRows, test_rows: TrainingRows) -> dict[str, npt.NDArray[np.str_]]:
    shown = np.bincount(train_rows.item, minlength=len(train_rows.items))
    earlier = earlier_impressions(train_rows.user, test_rows.user)
    return {
        "item popularity": item_popularity(test_rows.item, shown),
        "user activity": user_activity(earlier),
    }


def _lists_metrics(
    towers: Towers,
    tables: tuple[Neighbours, ...],
    categories: Mapping[str, str],
    train: TrainingRows,
    test: TrainingRows,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Metrics of what is retrieved for the test's likes, each from the actions just before it."""
    items = towers.items
    row_of = {id64(name): row for row, name in enumerate(items.item_id)}
    liked = np.flatnonzero(test.clicked)
    queries = [
        np.array([row_of.get(h, -1) for h in hashes if h], np.int64)
        for hashes in test.recent[liked].tolist()
    ]
    retriever = Retriever(towers, tables)
    popular = np.argsort(-items.popularity, kind="stable")

    def retrieve(history: Rows, k: int) -> Rows:
        known = history[history >= 0]
        if not len(known):
            return popular[:k]
        return retriever.retrieve(known, k, known).rows

    # The test's item numbers are those of the rows, which come first in the table.
    found = retrieved(CANDIDATES, queries, test.item[liked], test.user[liked], retrieve)
    names = [categories.get(name, "") for name in items.item_id]
    category = np.unique(names, return_inverse=True)[1]
    shown = np.bincount(train.item, minlength=len(items.item_id))
    return retrieval_metrics(found, category, shown, seed=seed)
