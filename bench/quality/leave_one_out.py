"""MovieLens 100K, leave one out: each user's last rating of 4 or more against all films not rated.

Ours is what is served: all sources merged for the user's last 50 films, 500 candidates. Beside it
its index alone (PureSVD), its lists alone, and two towers in PureSVD's place; popularity; and two
references on whole tables and histories: EASE, and the films that others rated within five places
after one of the user's last five, alone and added to EASE. Nothing of ours was chosen on the films
left out here: the constants of the sources are those that find each user's second last like while
the last one is unknown as well. Other users' later ratings are known to all of them, so this says
which score finds a film, not what it would have found at the time; `movielens` measures that.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (EASE).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bench.figures import Figure
from pipelines.datasets.movielens import Ratings, categories, read_ratings
from pipelines.train.item_to_item import Actions, fit_item_to_item
from pipelines.train.retrieval import Retriever, Towers, fit_pure_svd, mean_towers
from pipelines.train.two_tower import fit_two_tower
from rankstream.contracts.neighbours import Neighbours
from rankstream.features.rows import RECENT
from rankstream.retrieval import Listed, blend, similar

LIKED: Final = 4.0
EASE_PENALTY: Final = 200.0
PLACES: Final = 5
LAST: Final = 5
FADING: Final = 0.9
CUTS: Final = (100, 500)
HIT_CUT: Final = 10
SEED: Final = 1

Scores = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Task:
    """Ratings that are known, in order of time, and the film that each of k users liked last.

    `user`, `item`, `liked`, `time_ms`: shape (n,). `category`: of each film, shape
    (items,). `held_user`, `held_item`: shape (k,).
    """

    users: int
    items: int
    user: Ints
    item: Ints
    liked: npt.NDArray[np.bool_]
    time_ms: Ints
    category: Ints
    held_user: Ints
    held_item: Ints

    def histories(self) -> list[Ints]:
        """Each user's films, oldest first."""
        order = np.argsort(self.user, kind="stable")
        ends = np.searchsorted(self.user[order], np.arange(1, self.users))
        return np.split(self.item[order], ends)

    def newest_first(self) -> list[Ints]:
        """What the service is told of each user: the last RECENT films."""
        return [films[-RECENT:][::-1] for films in self.histories()]

    def seen(self) -> Scores:
        """Shape (users, items), 1 where rated."""
        table = np.zeros((self.users, self.items))
        table[self.user, self.item] = 1.0
        return table


def read_task(folder: Path) -> Task:
    """The task of the docstring above."""
    return left_out(read_ratings(folder))


def left_out(ratings: Ratings, *, earlier: int = 0) -> Task:
    """Ratings in order of time, ties in that of the file, less each user's last like.

    Args:
        earlier: how many likes more to take away from the end; the one taken last is left out.
    """
    known, category = np.ones(len(ratings.value), bool), categories(ratings.films)
    for _ in range(earlier + 1):
        places = np.flatnonzero(known & (ratings.value >= LIKED))[::-1]
        users, newest = np.unique(ratings.user[places], return_index=True)
        held = places[newest]
        known[held] = False
    return Task(
        users=len(ratings.viewers),
        items=len(ratings.films),
        user=ratings.user[known],
        item=ratings.item[known],
        liked=ratings.value[known] >= LIKED,
        time_ms=ratings.time_ms[known],
        category=np.unique([category[f.item_id] for f in ratings.films], return_inverse=True)[1],
        held_user=users,
        held_item=ratings.item[held],
    )


def popularity(task: Task) -> Scores:
    """How often a film was liked."""
    likes = np.bincount(task.item[task.liked], minlength=task.items)
    return np.tile(likes.astype(np.float64), (task.users, 1))


def merged_sources(task: Task) -> Scores:
    """The product: -inf for a film that is not among the candidates."""
    return _retrieved(task, pure_svd_towers(task), _lists(task))


def pure_svd(task: Task) -> Scores:
    """The product's index alone."""
    return _retrieved(task, pure_svd_towers(task), ())


def two_tower(task: Task) -> Scores:
    """The index that `--retrieval two_tower` makes, alone."""
    return _retrieved(task, _two_tower(task), ())


def merged_two_tower(task: Task) -> Scores:
    """The product with two towers in PureSVD's place."""
    return _retrieved(task, _two_tower(task), _lists(task))


def lists(task: Task) -> Scores:
    """The product without an index: what the towers are worth is what this lacks."""
    tables, seen = _lists(task), task.seen() > 0
    scores = np.full((task.users, task.items), -np.inf)
    for user, history in enumerate(task.newest_first()):
        rated = np.flatnonzero(seen[user])
        named = [similar(table, history, max(CUTS), rated) for table in tables]
        listed = [Listed(f, t.share, 1) for f, t in zip(named, tables, strict=True)]
        found = blend(listed, max(CUTS))
        scores[user, found.rows] = found.score
    return scores


@cache
def _two_tower(task: Task) -> Towers:
    names = tuple(str(item) for item in range(task.items))
    likes = np.bincount(task.item[task.liked], minlength=task.items).astype(np.float32)
    actions = Actions.of(task.user, task.item)
    return fit_two_tower(names, task.category, actions, likes, seed=SEED)


def pure_svd_towers(task: Task) -> Towers:
    """The product's index and its query."""
    names = tuple(str(item) for item in range(task.items))
    user, item = task.user[task.liked], task.item[task.liked]
    return mean_towers(fit_pure_svd(names, user, item, users=task.users, seed=SEED))


def _lists(task: Task) -> tuple[Neighbours, ...]:
    return fit_item_to_item(Actions.of(task.user, task.item), items=task.items)


def _retrieved(task: Task, towers: Towers, tables: tuple[Neighbours, ...]) -> Scores:
    retriever, seen = Retriever(towers, tables), task.seen() > 0
    scores = np.full((task.users, task.items), -np.inf)
    for user, history in enumerate(task.newest_first()):
        found = retriever.retrieve(history, max(CUTS), np.flatnonzero(seen[user]))
        scores[user, found.rows] = found.score
    return scores


def ease(task: Task) -> Scores:
    """A linear autoencoder without a diagonal, in closed form."""
    seen = task.seen()
    precision = np.linalg.inv(seen.T @ seen + EASE_PENALTY * np.eye(task.items))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    scores: Scores = seen @ weights
    return scores


def successors(task: Task) -> Scores:
    """How often a film came soon after one of the user's last."""
    after = np.zeros((task.items, task.items))
    histories = task.histories()
    for films in histories:
        for places in range(1, PLACES + 1):
            np.add.at(after, (films[:-places], films[places:]), FADING ** (places - 1))
    fading = FADING ** np.arange(LAST)
    scores = np.zeros((task.users, task.items))
    for user, films in enumerate(histories):
        last = films[-LAST:][::-1]
        scores[user] = fading[: len(last)] @ after[last]
    return scores


def merged(task: Task) -> Scores:
    """EASE and successors, each user's scores of each on one scale."""
    return _standard(ease(task)) + _standard(successors(task))


def _standard(scores: Scores) -> Scores:
    spread = scores.std(axis=1, keepdims=True)
    scaled: Scores = (scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    return scaled


METHODS: Final[dict[str, Callable[[Task], Scores]]] = {
    "": merged_sources,
    ".lists": lists,
    ".pure_svd": pure_svd,
    ".two_tower": two_tower,
    ".merged_two_tower": merged_two_tower,
    ".popularity": popularity,
    ".ease": ease,
    ".successors": successors,
    ".ease_successors": merged,
}


def ranks(task: Task, scores: Scores) -> Ints:
    """How many unseen films are before the one left out, ties before it, shape (k,)."""
    scores = np.where(task.seen() > 0, -np.inf, scores)[task.held_user]
    own = scores[np.arange(len(scores)), task.held_item]
    before: Ints = (scores >= own[:, None]).sum(axis=1) - 1
    return before


def leave_one_out(folder: Path, say: Callable[[str], None]) -> list[Figure]:
    """quality.ml100k.loo[.method].{hr10,ndcg10,recall100,recall500}."""
    task = read_task(folder)
    found = []
    for name, method in METHODS.items():
        before = ranks(task, method(task))
        hit = before < HIT_CUT
        values = {
            f"hr{HIT_CUT}": hit.mean(),
            f"ndcg{HIT_CUT}": np.where(hit, 1.0 / np.log2(before + 2.0), 0.0).mean(),
            **{f"recall{cut}": (before < cut).mean() for cut in CUTS},
        }
        told = ", ".join(f"{metric} {value:.3f}" for metric, value in values.items())
        say(f"movielens leave one out{name}: {told}")
        found += [
            Figure(f"quality.ml100k.loo{name}.{metric}", float(value), "")
            for metric, value in values.items()
        ]
    return found
