"""How good retrieved lists are: whether they hold what was liked next, and what else they hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipelines.evaluate.impressions import Ints, codes
from pipelines.evaluate.intervals import LEVEL, Draws, Interval, interval, resample
from pipelines.evaluate.lists import ABSENT, LIST_METRICS, RankedLists
from pipelines.evaluate.spread import spread
from pipelines.evaluate.weighted import mean_of

SHOWN: Final = 10
# A like is one wanted item: its recall is the hit rate, its average precision the reciprocal rank.
SHOWN_METRICS: Final = (("hit_rate", 10), ("ndcg", 5), ("ndcg", 10), ("mrr", 10))


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The candidates of q likes, `depth` for each.

    `top` int64, shape (q, SHOWN), rows of the first, best first, ABSENT where there are fewer;
    `rank` int64, shape (q,), the liked item's, from 0, ABSENT if it is no candidate; `user` int64,
    shape (q,), ids.
    """

    top: Ints
    rank: Ints
    user: Ints
    depth: int


def retrieved(
    depth: int,
    queries: Sequence[Ints],
    wanted: Ints,
    user: Ints,
    retrieve: Callable[[Ints, int], Ints],
) -> Retrieved:
    """Retrieve for each like from the user's history just before it.

    Args:
        queries: of each like, the rows of the user's last items, -1 unknown.
        wanted: shape (q,), row of the liked item; user: shape (q,), ids.
        retrieve: (history, k) -> rows of at most k candidates, best first.
    """
    top = np.full((len(queries), SHOWN), ABSENT, np.int64)
    rank = np.full(len(queries), ABSENT, np.int64)
    for place, (history, item) in enumerate(zip(queries, wanted.tolist(), strict=True)):
        candidates = retrieve(history, depth)
        top[place, : len(candidates)] = candidates[:SHOWN]
        at = np.flatnonzero(candidates == item)
        if len(at):
            rank[place] = at[0]
    return Retrieved(top, rank, user, depth)


def retrieval_metrics(
    found: Retrieved, category: Ints, impressions: Ints, *, seed: int
) -> dict[str, Interval]:
    """Every metric of retrieval by name, all values finite: one that is undefined is left out.

    Args:
        category: shape (items,), codes from 0; impressions: shape (items,), how often each item
            was shown in training.
        seed: of the resamples of users.

    Returns: recall_at_<depth>, hit rate, ndcg and mrr of the first 10, and of the same lists
        diversity, novelty, popularity and popularity_rank, as `spread` has them. Means over likes,
        users resampled. Then coverage and gini of all lists: they have no ends, since a resample
        of users always covers less than all of them do.
    Raises: InvalidInput: nothing was retrieved, or an item is outside the catalogue.
    """
    beside = spread(found.top, category, impressions)
    lists = _with_one_wanted(found.rank)
    values = {f"recall_at_{found.depth}": (found.rank != ABSENT).astype(np.float64)}
    values |= {f"{name}_at_{k}": LIST_METRICS[name](lists, k) for name, k in SHOWN_METRICS}
    values |= {
        "diversity": beside.diversity,
        "novelty": beside.novelty,
        "popularity": beside.popularity,
        "popularity_rank": beside.popularity_rank,
    }
    owner, users = codes("user", found.user, len(found.rank))
    replayed = resample(
        {name: mean_of(value, owner, users) for name, value in values.items()},
        Draws(users, seed=seed),
    )
    measured = {name: interval(one) for name, one in replayed.items()}
    for name, value in (("coverage", beside.coverage), ("gini", beside.gini)):
        measured[name] = Interval(value, math.nan, math.nan, LEVEL)
    return {name: one for name, one in measured.items() if math.isfinite(one.value)}


def _with_one_wanted(rank: Ints) -> RankedLists:
    """Lists of depth SHOWN that hold one relevant item, at `rank`, shape (q,), or further down."""
    first = np.arange(SHOWN)
    return RankedLists(
        relevance=(rank[:, None] == first).astype(np.float64),
        ideal=np.tile((first == 0).astype(np.float64), (len(rank), 1)),
        relevant=np.ones(len(rank), np.int64),
        query=np.arange(len(rank)),
    )
