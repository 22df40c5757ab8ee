"""What the cut before ranking costs: lists of requests with and without it, on public logs.

The ranker is XGBoost on the rows before the test, its stand-in is distilled from the same rows.

- judged: a list is all that was shown to a user in the test, at least SHOWN_MIN, with the features
  of the impression; KEEP of CANDIDATES, but no fewer than KEEP_MIN, stay. Everything in it has a
  label, and where ten stay the cut alone decides who the first ten are; of a hundred it hardly
  does. So this is more than a request loses.
- lists of CANDIDATES: a user of the test at the middle of their impressions there. Candidates are
  what was shown from then on and what the product's retrieval gives for the last actions, features
  are those of that moment. overlap20 is the share of the ranker's first twenty that stay. Most have
  no label and count as not relevant.

A user has one list of each kind, so that intervals over lists are over users.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import ROOT, Figure
from bench.quality import movielens
from bench.quality.kuairand import TEST_FROM_MS
from deploy.local.report import Silent
from deploy.local.tools import provision
from pipelines.datasets import kuairand as kuairand_log
from pipelines.datasets.history import History
from pipelines.datasets.movielens import history, read_ratings
from pipelines.evaluate.intervals import Draws, Interval, interval, resample
from pipelines.evaluate.lists import ndcg, rank_lists
from pipelines.evaluate.weighted import mean_of
from pipelines.features.point_in_time import counters_before
from pipelines.features.replay import (
    ItemFacts,
    TrainingRows,
    UserReplay,
    Windows,
    added_to,
    attributed,
    describe,
    in_event_time,
    places,
    training_rows,
)
from pipelines.train.artefact import served
from pipelines.train.preranking import fit_prerank
from pipelines.train.retrieval import Retriever
from pipelines.train.sources import TowerFamily, fit_sources
from pipelines.train.steps import hold_unobserved, split
from pipelines.train.trees import fit_xgboost
from rankstream.contracts.ids import id64
from rankstream.features.deltas import Entity
from rankstream.features.rows import CATEGORY_ROW, CONTEXT_ROW, ITEM_ROW, Rows, empty_rows
from rankstream.features.snapshot import PARTIAL, PARTIAL_NAMES, hashes_of, snapshot
from rankstream.ranking.preranking import best, linear_scores
from rankstream.stream.intake import take_in

Say = Callable[[str], None]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CANDIDATES: Final = 500
KEEP: Final = 100
KEEP_MIN: Final = 10
SHOWN_MIN: Final = 20
USERS_MAX: Final = 600
NDCG_CUT: Final = 10
OVERLAP_CUT: Final = 20
SEED: Final = 1
_NO_CONTEXT: Final = empty_rows(2, CONTEXT_ROW)[None]


@dataclass(frozen=True, eq=False)
class Request:
    """`features` of m candidates, (m, spec.WIDTH), and `clicked`, (m,): what is relevant."""

    features: npt.NDArray[np.float32]
    clicked: npt.NDArray[np.bool_]


def preranking(say: Say) -> list[Figure]:
    """serving.recommend.prerank.{log}.{judged.,}{ndcg10,ndcg_cost} and .overlap20; .ndcg_cost is
    the larger one of both logs' judged lists."""
    folder = provision(ROOT / ".run" / "tools", Silent()).ml_100k
    found = _of("movielens", history(read_ratings(folder), until_ms=movielens.UNTIL_MS), None, say)
    kuairand = Path(os.environ.get("RANKSTREAM_DATA", "")) / "kuairand"
    if (kuairand / "impressions.parquet").exists():
        found += _of("kuairand", kuairand_log.history(kuairand), TEST_FROM_MS, say)
    else:
        say(f"kuairand is left out: {kuairand} is absent; set RANKSTREAM_DATA")
    prefix = "serving.recommend.prerank"
    worst = max(
        (one for one in found if one.id.endswith(".judged.ndcg_cost")), key=lambda one: one.value
    )
    return [Figure(f"{prefix}.ndcg_cost", worst.value, worst.unit, worst.spread), *found]


def _of(name: str, log: History, test_from_ms: int | None, say: Say) -> list[Figure]:
    """`test_from_ms`: None is the last tenth of the rows."""
    facts = {item.item_id: ItemFacts(item.category, item.attributes) for item in log.items}
    windows = Windows()
    until_ms = int(log.columns.event_time_ms.max()) + windows.conversion_window_ms
    rows = training_rows(log.columns, facts, until_ms=until_ms, windows=windows)
    rows = hold_unobserved(rows, log.columns.kind)
    from_ms = split(rows)[2] if test_from_ms is None else test_from_ms
    train = rows.take(np.flatnonzero(rows.time_ms < from_ms))
    test = rows.take(np.flatnonzero(rows.time_ms >= from_ms))
    score = served(fit_xgboost(train.features, train.clicked, seed=SEED).graph)
    by_name = fit_prerank(score, train.features, seed=SEED)
    weights = np.array([by_name[column] for column in PARTIAL_NAMES])
    values: dict[str, list[float]] = {}
    for user in np.flatnonzero(np.bincount(test.user) >= SHOWN_MIN).tolist():
        shown = test.take(np.flatnonzero(test.user == user))
        keep = max(KEEP_MIN, len(shown) * KEEP // CANDIDATES)
        found = lost(score, weights, shown.features, shown.clicked == 1, keep)
        # Where ten stay, no more than half of the first twenty can.
        found.pop("overlap20", None)
        _add(values, "judged.", found)
    for one in _requests(log, facts, train, test, until_ms):
        _add(values, "", lost(score, weights, one.features, one.clicked, KEEP))
    return _figures(name, {part: np.array(found) for part, found in values.items()}, say)


def _add(values: dict[str, list[float]], prefix: str, found: Mapping[str, float]) -> None:
    for name, value in found.items():
        values.setdefault(f"{prefix}{name}", []).append(value)


def lost(
    score: Callable[[Floats], list[Floats]],
    weights: Doubles,
    features: Floats,
    clicked: npt.NDArray[np.bool_],
    keep: int,
) -> dict[str, float]:
    """What one list is worth, and what a cut takes from it; nothing if nothing was clicked."""
    if not clicked.any():
        return {}
    logit = score(features)[0].astype(np.float64)
    kept, _ = best(linear_scores(features[:, PARTIAL], weights), keep)
    after = np.full(len(logit), -np.inf)
    after[kept] = logit[kept]
    whole = _ndcg(logit, clicked)
    first = np.argsort(-logit, kind="stable")[:OVERLAP_CUT]
    return {
        "ndcg10": whole,
        "ndcg_cost": whole - _ndcg(after, clicked),
        "overlap20": float(np.isin(first, kept).mean()),
    }


def _ndcg(score: Doubles, clicked: npt.NDArray[np.bool_]) -> float:
    lists = rank_lists(np.zeros(len(score)), score, clicked, NDCG_CUT, seed=SEED)
    return float(ndcg(lists, NDCG_CUT)[0])


def _figures(name: str, values: Mapping[str, Doubles], say: Say) -> list[Figure]:
    replayed = {}
    for part, value in values.items():
        users = len(value)
        mean = mean_of(value, np.arange(users), users)
        replayed[part] = resample({part: mean}, Draws(users, seed=SEED))[part]
    out = []
    for part, one in replayed.items():
        found: Interval = interval(one)
        ends = f"{found.low:.4f}..{found.high:.4f}"
        say(f"{name}, {len(values[part])} users, {part}: {found.value:.4f} ({ends})")
        spread = float(np.std(one.replicates, ddof=1))
        out.append(Figure(f"serving.recommend.prerank.{name}.{part}", found.value, "", spread))
    return out


def _requests(
    log: History,
    facts: Mapping[str, ItemFacts],
    train: TrainingRows,
    test: TrainingRows,
    until_ms: int,
) -> Iterator[Request]:
    """Of users of the test, at the middle of their impressions there."""
    item_id = tuple(dict.fromkeys((*train.items, *sorted(facts))))
    categories = {name: fact.category for name, fact in facts.items()}
    towers, tables = fit_sources(TowerFamily.PURE_SVD, train, item_id, categories, seed=SEED)
    retriever = Retriever(towers, tables)
    row_of = {id64(name): row for row, name in enumerate(item_id)}
    popular = np.argsort(-towers.items.popularity, kind="stable")
    chosen, moment_ms = _moments(test)
    known = _Known(log, facts, item_id, until_ms)
    for user, now_ms, state in known.users(train.users, chosen, moment_ms):
        later = np.flatnonzero((test.user == user) & (test.time_ms >= now_ms))
        shown = np.unique(test.item[later])
        hashes = state["recent"]["item"][0]
        seen = np.array([row_of.get(h, -1) for h in hashes.tolist() if h], np.int64)
        seen = seen[seen >= 0]
        found = popular
        if len(seen):
            found = retriever.retrieve(seen, CANDIDATES, seen).rows
        candidates = np.concatenate([shown, found[~np.isin(found, shown)]])[:CANDIDATES]
        clicked = np.isin(candidates, test.item[later][test.clicked[later] == 1])
        yield Request(known.vectors(state, candidates, now_ms), clicked)


def _moments(test: TrainingRows) -> tuple[Ints, Ints]:
    """At most USERS_MAX users and the middle of their impressions."""
    users = np.unique(test.user)
    chosen = np.sort(np.random.default_rng(SEED).permutation(users)[:USERS_MAX])
    middle = [int(np.median(test.time_ms[test.user == user])) for user in chosen.tolist()]
    return chosen, np.array(middle, np.int64)


class _Known:
    """States of users, items and categories as of any time."""

    def __init__(
        self, log: History, facts: Mapping[str, ItemFacts], item_id: tuple[str, ...], until_ms: int
    ) -> None:
        self._intake = take_in(log.columns, in_event_time(log.columns, until_ms=until_ms))
        _, self._additions = attributed(self._intake, Windows())
        self._facts = [facts.get(name, ItemFacts("", {})) for name in item_id]
        names = tuple(sorted({fact.category for fact in self._facts}))
        number = places(names)
        self._category_of = np.array([number[fact.category] for fact in self._facts])
        self._names = np.array([name.encode() for name in names])
        self._items = added_to(self._additions, Entity.ITEM, places(item_id))
        self._categories = added_to(self._additions, Entity.CATEGORY, number)

    def users(
        self, names: tuple[str, ...], user: Ints, time_ms: Ints
    ) -> Iterator[tuple[int, int, Rows]]:
        """Each of `user`, shape (k,), places in `names`, when, and the USER_ROW, shape (1,)."""
        replay = UserReplay(self._intake, self._additions, Windows())
        for some, rows in replay.before(names, user, time_ms):
            for at, place in enumerate(some.tolist()):
                yield int(user[place]), int(time_ms[place]), rows[at : at + 1]

    def vectors(self, user: Rows, candidates: Ints, now_ms: int) -> npt.NDArray[np.float32]:
        """Shape (m, spec.WIDTH), of the candidates of a request."""
        items = counters_before(ITEM_ROW, candidates, np.full(len(candidates), now_ms), self._items)
        describe(items, candidates, self._facts)
        of, everyone = self._category_of[candidates], np.arange(len(self._names))
        categories = counters_before(
            CATEGORY_ROW, everyone, np.full(len(everyone), now_ms), self._categories
        )
        categories[self._names == b""] = empty_rows(1, CATEGORY_ROW)[0]
        return snapshot(
            user,
            items,
            categories,
            _NO_CONTEXT,
            np.array([now_ms]),
            item_of=np.arange(len(items)),
            category_of=of,
            category_hash=hashes_of(self._names),
        )
