"""MovieLens 100K, leave one out, in two stages: LambdaMART over the candidates of retrieval.

The task is that of `leave_one_out`. A query is a user; its candidates are the first CANDIDATES that
the product's retrieval gives. The ranker learns from the same task one to LESSONS likes earlier:
there the second last like is left out while the last one is unknown as well, and so on. The sources
are fitted again for each, so that neither a list nor a feature has seen the film that is left out.
The lessons' films are known to the sources of the test, which is what its users would have done.
The size of the trees and their number were chosen by the second last like, learning from the three
before it; the other parameters were set once and not searched.

Burges, "From RankNet to LambdaRank to LambdaMART: An Overview", Microsoft Research 2010.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from bench.figures import Figure, figure
from bench.quality.leave_one_out import HIT_CUT, Task, left_out, pure_svd_towers
from bench.quality.scores import SEEDS
from pipelines.datasets.movielens import Film, read_ratings
from pipelines.train.item_to_item import Actions, fit_item_to_item
from pipelines.train.retrieval import Retriever
from rankstream.contracts.neighbours import Neighbours
from rankstream.features.rows import RECENT
from rankstream.retrieval import similar

CANDIDATES: Final = 200
LESSONS: Final = 4
ROUNDS: Final = 120
PARAMETERS: Final = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 20,
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "num_threads": 1,
    "verbosity": -1,
}
DAY_MS: Final = 86_400_000
TREND_DAYS: Final = (3.0, 30.0)

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Queries:
    """q lists: `features` (n, d), `found` (n,), 1 for the film left out, and `size` (q,).

    A film that is not among the candidates leaves a list of zeros.
    """

    features: Floats
    found: npt.NDArray[np.uint8]
    size: Ints


def queries(task: Task, films: Sequence[Film]) -> Queries:
    """Candidates of the users of a task, best first."""
    context = _Context(task, films)
    blocks, found, size = [], [], []
    for user, held in zip(task.held_user.tolist(), task.held_item.tolist(), strict=True):
        rows, block = context.candidates(user)
        blocks.append(block)
        found.append(rows == held)
        size.append(len(rows))
    return Queries(
        np.concatenate(blocks).astype(np.float32),
        np.concatenate(found).astype(np.uint8),
        np.array(size),
    )


class _Context:
    """What is known of films and users without the films left out."""

    def __init__(self, task: Task, films: Sequence[Film]) -> None:
        self._task = task
        self._tables = fit_item_to_item(Actions.of(task.user, task.item), items=task.items)
        self._towers = pure_svd_towers(task)
        self._retriever = Retriever(self._towers, self._tables)
        order = np.argsort(task.user, kind="stable")
        ends = np.searchsorted(task.user[order], np.arange(1, task.users))
        self._of_user = np.split(order, ends)
        self._seen_at = np.sort(task.item * (1 << 50) + task.time_ms)
        rated = np.bincount(task.item, minlength=task.items).astype(np.float64)
        liked = np.bincount(task.item, task.liked, task.items)
        self._rated = np.log1p(rated)
        self._liked = (liked + 5.0 * task.liked.mean()) / (rated + 5.0)
        self._year = np.nan_to_num(np.array([film.year for film in films]), nan=1990.0)
        names = sorted({genre for film in films for genre in film.genres})
        genres = np.array([[name in film.genres for name in names] for film in films], float)
        self._genres = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1.0)

    def candidates(self, user: int) -> tuple[Ints, Scores]:
        """Rows and their features."""
        task, mine = self._task, self._of_user[user]
        films, liked = task.item[mine][::-1], task.liked[mine][::-1]
        blend = self._retriever.retrieve(films[:RECENT], CANDIDATES, films)
        rows = blend.rows
        now_ms = int(task.time_ms[mine].max())
        columns: list[npt.NDArray[Any]] = [blend.score, np.arange(len(rows))]
        for history in (films, films[liked], films[~liked]):
            for table in self._tables:
                columns += self._similarity(table, history, rows)
        vectors = self._towers.items.vectors
        for history in (films[:RECENT], films[liked][:10]):
            near = vectors[rows] @ vectors[history].sum(axis=0)
            columns += [near / max(float(np.linalg.norm(near)), 1e-9), _places(near)]
        taste = self._genres[films].mean(axis=0)
        lately = self._genres[films[:5]].mean(axis=0)
        like = np.where(liked, 1.0, -1.0) @ self._genres[films] / (self._genres[films].sum(0) + 3.0)
        columns += [self._genres[rows] @ each for each in (taste, lately, like)]
        columns += [self._rated[rows], self._liked[rows], _places(self._rated[rows])]
        columns += [self._year[rows], np.abs(self._year[rows] - self._year[films[:5]].mean())]
        columns += [self._during(rows, now_ms, days) for days in TREND_DAYS]
        columns += [np.full(len(rows), each) for each in (len(films), liked.mean())]
        return rows, np.stack(columns, axis=1)

    def _similarity(self, table: Neighbours, history: Ints, rows: Ints) -> list[Scores]:
        scores = np.zeros(self._task.items)
        found = similar(table, history, self._task.items, np.empty(0, np.int64))
        scores[found.rows] = found.similarity
        length = max(float(np.linalg.norm(scores)), 1e-9)
        return [scores[rows] / length, _places(scores[rows])]

    def _during(self, rows: Ints, now_ms: int, days: float) -> Scores:
        """How often each film was rated in the days before, as a logarithm."""
        start = rows * (1 << 50)
        since = np.searchsorted(self._seen_at, start + now_ms - round(days * DAY_MS))
        until = np.searchsorted(self._seen_at, start + now_ms, side="right")
        counts: Scores = np.log1p(until - since)
        return counts


def _places(scores: npt.NDArray[np.floating]) -> Scores:
    places = np.empty(len(scores))
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places


def ndcg(found: npt.NDArray[np.uint8], size: Ints, scores: Scores) -> float:
    """NDCG@HIT_CUT: mean over the lists of 1 / log2(place + 2) of the one film that counts."""
    query = np.repeat(np.arange(len(size)), size)
    order = np.lexsort((-scores, query))
    place = np.arange(len(query)) - np.repeat(np.cumsum(size) - size, size)
    hit = (found[order] == 1) & (place < HIT_CUT)
    return float((1.0 / np.log2(place[hit] + 2.0)).sum() / len(size))


def fit(lessons: Sequence[Queries], *, seed: int) -> lgb.Booster:
    """LambdaMART on the lists that hold what was left out."""
    features, found, size = [], [], []
    for lesson in lessons:
        query = np.repeat(np.arange(len(lesson.size)), lesson.size)
        held = np.bincount(query, lesson.found) > 0
        features.append(lesson.features[held[query]])
        found.append(lesson.found[held[query]])
        size.append(lesson.size[held])
    data = lgb.Dataset(np.concatenate(features), np.concatenate(found), group=np.concatenate(size))
    return lgb.train({**PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS)


def two_stage(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.ml100k.loo.two_stage_ndcg10, and that of the candidates in their own order."""
    ratings = read_ratings(folder)
    test, *lessons = (
        queries(left_out(ratings, earlier=earlier), ratings.films) for earlier in range(LESSONS + 1)
    )
    values = []
    for seed in SEEDS:
        scores = np.asarray(fit(lessons, seed=seed).predict(test.features), np.float64)
        values.append(ndcg(test.found, test.size, scores))
    first = ndcg(test.found, test.size, test.features[:, 0].astype(np.float64))
    say(f"movielens leave one out, two stages: ndcg10 {values}; retrieval's order {first:.3f}")
    return [figure("quality.ml100k.loo.two_stage_ndcg10", values, "")]
