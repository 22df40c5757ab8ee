"""How good ranked lists are.

Lists are matrices of k columns, best rank first, one row per query; metrics of lists return one
number per query, nan where a query has nothing relevant, so that their means can say what they
left out and a bootstrap can resample them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.impressions import Doubles, Ints, refusal

ABSENT: Final = -1


@dataclass(frozen=True, eq=False)
class RankedLists:
    """q ranked lists of at most k candidates.

    `relevance` float64, shape (q, k), not negative, of the candidate at each rank, 0 where a list
    is shorter; `ideal` float64, shape (q, k), the k highest relevances of the query in descending
    order, retrieved or not; `relevant` int64, shape (q,), how many have a relevance above 0;
    `query` int64, shape (q,), ascending.
    """

    relevance: Doubles
    ideal: Doubles
    relevant: Ints
    query: Ints


ListMetric = Callable[[RankedLists, int], Doubles]


def rank_lists(
    query: npt.ArrayLike, score: npt.ArrayLike, relevance: npt.ArrayLike, k: int, *, seed: int = 1
) -> RankedLists:
    """The k best candidates of each query by score.

    Args:
        query: shape (n,), ids; score: shape (n,), higher is better, not nan; relevance: shape
            (n,), not negative, of every judged candidate: the ideal list is made of them.
        seed: breaks ties. The order of the rows must not: it is the order of a log, thus that of
            the ranker that served, and a model that ties everything would inherit its quality.

    Raises: InvalidInput: empty, lengths that differ, k below 1, nan, negative relevance.
    """
    _, code = np.unique(np.asarray(query), return_inverse=True)
    points, gain = np.asarray(score, np.float64), np.asarray(relevance, np.float64)
    if not len(code) or code.shape != points.shape or code.shape != gain.shape or k < 1:
        raise refusal(
            f"lists of {len(code)} candidates with scores {points.shape}, relevances"
            f" {gain.shape}, k={k} (the same length, at least 1)",
            "Give every candidate a query, a score and a relevance.",
        )
    if np.isnan(points).any() or not (gain >= 0).all():
        raise refusal(
            f"{int(np.isnan(points).sum())} scores are nan (limit 0) and"
            f" {int((~(gain >= 0)).sum())} relevances are negative or nan (limit 0)",
            "Score and judge every candidate.",
        )
    chance = np.random.default_rng(seed).permutation(len(code))
    queries = int(code.max()) + 1
    return RankedLists(
        relevance=_top(code, gain, np.lexsort((chance, -points, code)), queries, k),
        ideal=_top(code, gain, np.lexsort((-gain, code)), queries, k),
        relevant=np.bincount(code, gain > 0, queries).astype(np.int64),
        query=np.unique(np.asarray(query)),
    )


def _top(code: Ints, gain: Doubles, order: Ints, queries: int, k: int) -> Doubles:
    sizes = np.bincount(code, minlength=queries)
    rank = np.arange(len(code)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = rank < k
    top = np.zeros((queries, k))
    top[code[order][kept], rank[kept]] = gain[order][kept]
    return top


def _where_relevant(lists: RankedLists, values: npt.ArrayLike) -> Doubles:
    return np.where(lists.relevant > 0, np.asarray(values, np.float64), np.nan)


def ndcg(lists: RankedLists, k: int) -> Doubles:
    """Discounted gain over that of the ideal list, shape (q,), in [0, 1].

    Gain is the relevance itself and the discount 1 / log2(rank + 1), as in trec_eval.
    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.
    """
    _check_depth(lists, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = lists.ideal[:, :k] @ discount
    gained = lists.relevance[:, :k] @ discount
    share: Doubles = np.divide(gained, best, out=np.full(len(best), np.nan), where=best > 0)
    return share


def average_precision(lists: RankedLists, k: int) -> Doubles:
    """Precision at each relevant rank up to k, over all relevant candidates, shape (q,), in [0, 1].

    The base is every relevant candidate, not at most k: what a list left out costs (trec_eval).
    """
    _check_depth(lists, k)
    hits = lists.relevance[:, :k] > 0
    precision = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    total = (precision * hits).sum(axis=1)
    return _where_relevant(lists, total / np.maximum(lists.relevant, 1))


def reciprocal_rank(lists: RankedLists, k: int) -> Doubles:
    """1 over the rank of the first relevant candidate, 0 if it is past k, shape (q,)."""
    _check_depth(lists, k)
    hits = lists.relevance[:, :k] > 0
    return _where_relevant(lists, np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0))


def hit_rate(lists: RankedLists, k: int) -> Doubles:
    """1 if a relevant candidate is among the first k, else 0, shape (q,)."""
    _check_depth(lists, k)
    return _where_relevant(lists, (lists.relevance[:, :k] > 0).any(axis=1).astype(np.float64))


def recall(lists: RankedLists, k: int) -> Doubles:
    """Share of the relevant candidates among the first k, shape (q,), in [0, 1]."""
    _check_depth(lists, k)
    found = (lists.relevance[:, :k] > 0).sum(axis=1)
    return _where_relevant(lists, found / np.maximum(lists.relevant, 1))


def _check_depth(lists: RankedLists, k: int) -> None:
    if not 1 <= k <= lists.relevance.shape[1]:
        raise refusal(
            f"k={k} of lists ranked to depth {lists.relevance.shape[1]}"
            f" (limit 1 to {lists.relevance.shape[1]})",
            "Rank the lists deeper.",
        )


LIST_METRICS: Final[Mapping[str, ListMetric]] = {
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
    "recall": recall,
}
