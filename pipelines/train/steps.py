"""Rows to evaluated, parity-checked artefacts. Nothing is written unless every model passes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison, compare
from pipelines.evaluate.importance import attention
from pipelines.evaluate.impressions import Impressions
from pipelines.evaluate.metrics import ranker_metrics, recall_at
from pipelines.evaluate.slices import earlier_impressions, item_popularity, user_activity
from pipelines.features.replay import TrainingRows
from pipelines.train.artefact import (
    Origin,
    data_version,
    ranker_latency,
    tower_parity,
    write_ranker,
    write_retrieval,
)
from pipelines.train.families import (
    DEFAULT_NETWORKS,
    Family,
    Networks,
    Served,
    fitted,
    purchase_metrics,
    served,
    utility_of,
)
from pipelines.train.neural import Run
from pipelines.train.rankers import check_rows
from pipelines.train.retrieval import ItemVectors, fit_pure_svd
from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.faiss_index import FaissIndex
from rankstream.contracts.columns import Kind
from rankstream.contracts.ids import id64
from rankstream.features import spec

Rows = npt.NDArray[np.int64]

TEST_SHARE: Final = 0.1
CANDIDATES: Final = 500
STEPS: Final = 4  # retrieval, champion, challenger, artefacts
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
CHECKPOINTS: Final = "checkpoints"


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
    catalogue: Iterable[str],
    root: Path,
    *,
    created_ms: int,
    seed: int,
    step: Callable[[str, int, int], None],
    champion: Family = Family.LOGISTIC_REGRESSION,
    challenger: Family = Family.XGBOOST,
    negatives: float = 1.0,
    networks: Networks = DEFAULT_NETWORKS,
) -> Trained:
    """Fit, check, evaluate, write.

    Args:
        catalogue: ids of all items, those without a row too.
        champion, challenger: who gets these aliases.
        negatives: share of impressions without a click that rankers are fitted on, in (0, 1].
        root: folder of artefacts. A fit that was interrupted goes on, on the same rows, from the
            checkpoint in it.
        step: hears ("models", steps done, steps in all), and of a network's epochs.

    Raises: InvalidInput, InvalidArtifact, Conflict; nothing is registered then.
    """
    train_rows, test_rows, split_ms = _checked_split(rows)
    origin = Origin(created_ms, data_version(rows), int(rows.time_ms[0]), split_ms)
    step("models", 0, STEPS)
    item_id = tuple(dict.fromkeys((*rows.items, *sorted(catalogue))))
    liked = np.flatnonzero(train_rows.clicked)
    items = fit_pure_svd(
        item_id, train_rows.user[liked], train_rows.item[liked], users=len(rows.users), seed=seed
    )
    tower_gap = tower_parity(items, seed=seed)
    recall = {f"recall_at_{CANDIDATES}": _recall(items, test_rows), "items": float(len(item_id))}
    run = Run(root / CHECKPOINTS, origin.data_version, step)
    rankers, pctr, latency, looks = [], {}, {}, {}
    families = ((CHAMPION, champion), (CHALLENGER, challenger))
    for done, (alias, family) in enumerate(families, 1):
        step("models", done, STEPS)
        fit = fitted(family, train_rows, negatives, networks, seed=seed, run=run)
        held = served(fit, rows.features, networks.precision, seed=seed)
        ranker = held.ranker
        name = f"{ranker.family} ({alias})"
        pctr[name] = ranker.predict(test_rows.features)
        latency[name] = ranker_latency(ranker, test_rows.features, seed=seed)
        looks[name] = attention(
            ranker.predict, test_rows.features, test_rows.clicked, spec.NAMES, seed=seed
        )
        metrics = ranker_metrics(test_rows.clicked, pctr[name], test_rows.user)
        metrics |= purchase_metrics(ranker, test_rows)
        rankers.append((alias, held, metrics))
    step("models", STEPS - 1, STEPS)
    artifacts = [
        (alias, _written(root, held, train_rows, origin, metrics, networks))
        for alias, held, metrics in rankers
    ]
    index = write_retrieval(root, items, origin, metrics=recall, parity=tower_gap)
    shutil.rmtree(root / CHECKPOINTS, ignore_errors=True)
    step("models", STEPS, STEPS)
    return Trained(
        artifacts=[*artifacts, (CHAMPION, index)],
        metrics={alias: metrics for alias, _, metrics in rankers} | {"retrieval": recall},
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
    )


def _written(
    root: Path,
    held: Served,
    rows: TrainingRows,
    origin: Origin,
    metrics: Mapping[str, float],
    networks: Networks,
) -> Artifact:
    return write_ranker(
        root,
        held.ranker,
        rows,
        origin,
        metrics=metrics,
        parity=held.parity,
        utility=utility_of(held.ranker, rows, networks.purchase_weight),
        narrowed=held.narrowed,
    )


def _slices(train_rows: TrainingRows, test_rows: TrainingRows) -> dict[str, npt.NDArray[np.str_]]:
    shown = np.bincount(train_rows.item, minlength=len(train_rows.items))
    earlier = earlier_impressions(train_rows.user, test_rows.user)
    return {
        "item popularity": item_popularity(test_rows.item, shown),
        "user activity": user_activity(earlier),
    }


def _recall(items: ItemVectors, test: TrainingRows) -> float:
    """recall@CANDIDATES of the test's likes, each from the user's actions just before it."""
    row_of = {id64(name): row for row, name in enumerate(items.item_id)}
    liked = np.flatnonzero(test.clicked)
    queries = [
        np.array([row_of.get(h, -1) for h in hashes if h], np.int64)
        for hashes in test.recent[liked].tolist()
    ]
    index = FaissIndex.build(items.vectors)
    popular = np.argsort(-items.popularity, kind="stable")

    def retrieve(history: Rows, k: int) -> Rows:
        known = history[history >= 0]
        if not len(known):
            return popular[:k]
        query = items.vectors[known].mean(axis=0)
        return index.search(query, k, np.unique(known))[0]

    # The test's item numbers are those of the rows, which come first in the table.
    return recall_at(CANDIDATES, queries, test.item[liked], retrieve)
