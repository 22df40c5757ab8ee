"""Rows to evaluated, parity-checked artefacts. Nothing is written unless every model passes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison, Latency, compare
from pipelines.evaluate.importance import Attention, attention
from pipelines.evaluate.impressions import Impressions
from pipelines.evaluate.intervals import Interval
from pipelines.evaluate.metrics import ranker_metrics
from pipelines.evaluate.retrieval import retrieval_metrics, retrieved
from pipelines.evaluate.slices import earlier_impressions, item_popularity, user_activity
from pipelines.features.replay import NOTHING_KNOWN, ItemFacts, TrainingRows
from pipelines.train.artefact import (
    Origin,
    data_version,
    ranker_latency,
    tower_parity,
    write_ranker,
    write_retrieval,
)
from pipelines.train.checkpoint import Run
from pipelines.train.cold import fit_cold, with_cold
from pipelines.train.families import (
    DEFAULTS,
    Family,
    Options,
    Served,
    fitted,
    purchase_metrics,
    served,
    utility_of,
)
from pipelines.train.index import QUERIES_MAX
from pipelines.train.rankers import check_rows
from pipelines.train.retrieval import Retriever, Towers, queries_of
from pipelines.train.sources import TowerFamily, fit_sources
from rankstream.adapters.artifacts import Artifact
from rankstream.adapters.cold_vectors import ColdVectors
from rankstream.contracts.columns import Kind
from rankstream.contracts.content import content_of
from rankstream.contracts.ids import id64
from rankstream.contracts.neighbours import Neighbours
from rankstream.features import spec
from rankstream.features.rating_table import NO_RATINGS, RatingTable

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
    retrieval: Mapping[str, Interval]  # its metrics on the test's likes


@dataclass(frozen=True, eq=False)
class _Retrieval:
    """What is to be served; its metrics are on the test's likes."""

    towers: Towers
    tables: tuple[Neighbours, ...]
    rated: RatingTable
    parity: float
    metrics: dict[str, Interval]
    queries: npt.NDArray[np.float32]  # of some of those likes, shape (n, dimensions)
    cold: ColdVectors

    @property
    def values(self) -> dict[str, float]:
        """Its metrics without intervals, and how many items there are."""
        found = {name: one.value for name, one in self.metrics.items()}
        return found | {"items": float(len(self.towers.items.item_id))}

    def written(self, root: Path, origin: Origin, *, seed: int) -> Artifact:
        return write_retrieval(
            root,
            self.towers,
            self.tables,
            self.rated,
            origin,
            queries=self.queries,
            cold=self.cold,
            metrics=self.values,
            parity=self.parity,
            seed=seed,
        )


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """A ranker as it is to be served, and what it is worth on the test rows."""

    alias: str
    served: Served
    pctr: npt.NDArray[np.float64]
    latency: Latency
    attention: Attention
    metrics: dict[str, float]

    @property
    def name(self) -> str:
        return f"{self.served.ranker.family} ({self.alias})"


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
    retrieval: TowerFamily = TowerFamily.PURE_SVD,
    options: Options = DEFAULTS,
    rated: RatingTable = NO_RATINGS,
) -> Trained:
    """Fit, check, evaluate, write.

    Args:
        catalogue: item_id -> facts of all items, those without a row too.
        champion, challenger: who gets these aliases.
        retrieval: towers of the index; the lists beside it are always fitted.
        options: of both rankers.
        rated: what vectors are to be served with; those of `rows` have had earlier ones.
        root: folder of artefacts. A network's fit that was interrupted goes on, on the same rows,
            from the checkpoint in it.
        step: hears ("models", steps done, steps in all), and of a network's epochs.

    Raises: InvalidInput, InvalidArtifact, Conflict; nothing is registered then.
    """
    train_rows, test_rows, split_ms = _checked_split(rows)
    origin = Origin(created_ms, data_version(rows), int(rows.time_ms[0]), split_ms)
    step("models", 0, STEPS)
    found = _retrieval(retrieval, rows.items, catalogue, rated, train_rows, test_rows, seed=seed)
    run = Run(root / CHECKPOINTS, origin.data_version, step)
    families = {CHAMPION: champion, CHALLENGER: challenger}
    rankers = _rankers(families, rows, train_rows, test_rows, options, seed=seed, run=run)
    step("models", STEPS - 1, STEPS)
    artifacts = [
        (one.alias, _written(root, one, train_rows, origin, options, seed=seed)) for one in rankers
    ]
    index = found.written(root, origin, seed=seed)
    shutil.rmtree(root / CHECKPOINTS, ignore_errors=True)
    step("models", STEPS, STEPS)
    return Trained(
        artifacts=[*artifacts, (CHAMPION, index)],
        metrics={one.alias: one.metrics for one in rankers} | {"retrieval": found.values},
        data_version=origin.data_version,
        split_ms=split_ms,
        train_rows=len(train_rows),
        test_rows=len(test_rows),
        comparison=_compared(rankers, train_rows, test_rows, seed=seed),
        retrieval=found.metrics,
    )


def _retrieval(
    family: TowerFamily,
    shown: Sequence[str],
    catalogue: Mapping[str, ItemFacts],
    rated: RatingTable,
    train: TrainingRows,
    test: TrainingRows,
    *,
    seed: int,
) -> _Retrieval:
    """Items of rows come first in its table."""
    item_id = tuple(dict.fromkeys((*shown, *sorted(catalogue))))
    categories = {name: facts.category for name, facts in catalogue.items()}
    towers, tables = fit_sources(family, train, item_id, categories, seed=seed)
    parity = tower_parity(towers, seed=seed)
    liked = np.flatnonzero(test.clicked)
    histories = _histories(item_id, test, liked)
    some = np.random.default_rng(seed).permutation(len(histories))[:QUERIES_MAX]
    queries = queries_of(towers, [histories[place] for place in some.tolist()])
    contents = [content_of(catalogue.get(name, NOTHING_KNOWN)) for name in item_id]
    cold = fit_cold(towers.items, contents, queries, seed=seed)
    towers = with_cold(towers, cold, contents, ~_seen(item_id, train))
    metrics = _lists_metrics(
        Retriever(towers, tables), histories, liked, categories, train, test, seed=seed
    )
    return _Retrieval(towers, tables, rated, parity, metrics, queries, cold)


def _seen(item_id: Sequence[str], train: TrainingRows) -> npt.NDArray[np.bool_]:
    """Items that somebody was shown or acted on; those of the rows come first."""
    hashes = np.array([id64(name) for name in item_id], np.uint64)
    seen = np.isin(hashes, np.unique(train.recent))
    seen[train.item] = True
    return seen


def _histories(item_id: Sequence[str], test: TrainingRows, liked: Rows) -> list[Rows]:
    """Rows of the last items before each like, -1 unknown."""
    row_of = {id64(name): row for row, name in enumerate(item_id)}
    return [
        np.array([row_of.get(h, -1) for h in hashes if h], np.int64)
        for hashes in test.recent[liked].tolist()
    ]


def _rankers(
    families: Mapping[str, Family],
    rows: TrainingRows,
    train: TrainingRows,
    test: TrainingRows,
    options: Options,
    *,
    seed: int,
    run: Run,
) -> list[_Evaluated]:
    """A ranker for each alias; its graph is checked on all rows."""
    found = []
    for done, (alias, family) in enumerate(families.items(), 1):
        run.step("models", done, STEPS)
        fit = fitted(family, train, options, seed=seed, run=run)
        held = served(fit, rows.features, options.networks.precision, seed=seed)
        found.append(_evaluated(alias, held, test, seed=seed))
    return found


def _evaluated(alias: str, held: Served, test: TrainingRows, *, seed: int) -> _Evaluated:
    ranker = held.ranker
    pctr = ranker.predict(test.features)
    looks = attention(
        ranker.predict, test.features, test.clicked, spec.NAMES, seed=seed, shapley=ranker.shapley
    )
    metrics = ranker_metrics(test.clicked, pctr, test.user) | purchase_metrics(ranker, test)
    latency = ranker_latency(ranker, test.features, seed=seed)
    return _Evaluated(alias, held, pctr, latency, looks, metrics)


def _written(
    root: Path,
    one: _Evaluated,
    train: TrainingRows,
    origin: Origin,
    options: Options,
    *,
    seed: int,
) -> Artifact:
    ranker = one.served.ranker
    return write_ranker(
        root,
        ranker,
        train,
        origin,
        metrics=one.metrics,
        parity=one.served.parity,
        utility=utility_of(ranker, train, options.networks.purchase_weight),
        narrowed=one.served.narrowed,
        seed=seed,
    )


def _compared(
    rankers: Sequence[_Evaluated], train: TrainingRows, test: TrainingRows, *, seed: int
) -> Comparison:
    return compare(
        Impressions.of(test.clicked, test.user),
        {one.name: one.pctr for one in rankers},
        incumbent=rankers[0].name,
        slices=_slices(train, test),
        latency={one.name: one.latency for one in rankers},
        attention={one.name: one.attention for one in rankers},
        seed=seed,
    )


def _slices(train_rows: TrainingRows, test_rows: TrainingRows) -> dict[str, npt.NDArray[np.str_]]:
    shown = np.bincount(train_rows.item, minlength=len(train_rows.items))
    earlier = earlier_impressions(train_rows.user, test_rows.user)
    return {
        "item popularity": item_popularity(test_rows.item, shown),
        "user activity": user_activity(earlier),
    }


def _lists_metrics(
    retriever: Retriever,
    histories: Sequence[Rows],
    liked: Rows,
    categories: Mapping[str, str],
    train: TrainingRows,
    test: TrainingRows,
    *,
    seed: int,
) -> dict[str, Interval]:
    """Metrics of what is retrieved for the test's likes, each from the actions just before it."""
    items = retriever.items
    popular = np.argsort(-items.popularity, kind="stable")

    def retrieve(history: Rows, k: int) -> Rows:
        known = history[history >= 0]
        if not len(known):
            return popular[:k]
        return retriever.retrieve(known, k, known).rows

    # The test's item numbers are those of the rows, which come first in the table.
    found = retrieved(CANDIDATES, histories, test.item[liked], test.user[liked], retrieve)
    names = [categories.get(name, "") for name in items.item_id]
    category = np.unique(names, return_inverse=True)[1]
    shown = np.bincount(train.item, minlength=len(items.item_id))
    return retrieval_metrics(found, category, shown, seed=seed)
