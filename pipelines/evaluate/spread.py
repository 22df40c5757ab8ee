"""What recommended lists do beside being right: how varied, new and evenly spread they are.

`recommended` is int64, shape (q, k): rows of items in the catalogue, best first, -1 where a list
is shorter. `impressions` is shape (items,): how often each item of the catalogue was shown in
training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.evaluate.impressions import Doubles, Ints, refusal
from pipelines.evaluate.lists import ABSENT


@dataclass(frozen=True, eq=False)
class Spread:
    """Metrics of q recommended lists beyond accuracy.

    Of each list, float64, shape (q,), nan if it is empty: `diversity`: share of its pairs whose
    categories differ, in [0, 1], nan below two items; `novelty`: mean self-information in bits;
    `popularity`: mean training impressions; `popularity_rank`: mean rank by training impressions
    over the catalogue's length, near 0 if only the most popular items are recommended, 0.5 if
    popularity plays no part.
    Of all lists: `coverage`: share of the catalogue in any of them; `gini`: inequality of exposure
    over the catalogue, 0 equal, near 1 if one item gets all.
    """

    diversity: Doubles
    novelty: Doubles
    popularity: Doubles
    popularity_rank: Doubles
    coverage: float
    gini: float


def spread(recommended: Ints, category: Ints, impressions: Ints) -> Spread:
    """All of them.

    Args: category: shape (items,), codes from 0, of each item of the catalogue.
    Raises: InvalidInput: nothing recommended, an item outside the catalogue, lengths that differ.
    """
    shown = recommended[recommended != ABSENT]
    items = len(impressions)
    if not len(shown) or len(category) != items:
        raise refusal(
            f"{len(shown)} recommended items (at least 1), {len(category)} categories of"
            f" {items} items (the same number)",
            "Give lists, and a category for every item.",
        )
    if shown.min() < 0 or shown.max() >= items:
        raise refusal(
            f"recommended rows {shown.min()} to {shown.max()} of {items} items"
            f" (limit 0 to {items - 1}, {ABSENT} for none)",
            "Number items by their row in the catalogue.",
        )
    exposure = np.bincount(shown, minlength=items)
    return Spread(
        diversity=diversity(recommended, category),
        novelty=_means(recommended, self_information(impressions)),
        popularity=_means(recommended, impressions.astype(np.float64)),
        popularity_rank=_means(recommended, _descending_rank(impressions) / items),
        coverage=float(np.mean(exposure > 0)),
        gini=gini(exposure),
    )


def diversity(recommended: Ints, category: Ints) -> Doubles:
    """Share of a list's pairs whose categories differ, shape (q,); nan below two items.

    Source: Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW
    2005 (intra-list similarity), with similarity 1 within a category and 0 across.
    """
    present = recommended != ABSENT
    size = present.sum(axis=1)
    query = np.nonzero(present)[0]
    categories = int(category.max()) + 1
    cell, n = np.unique(query * categories + category[recommended[present]], return_counts=True)
    alike = np.bincount(cell // categories, n * (n - 1.0), len(recommended))
    pairs = size * (size - 1.0)
    share = np.divide(alike, pairs, out=np.full(len(recommended), np.nan), where=pairs > 0)
    unlike: Doubles = 1 - share
    return unlike


def self_information(impressions: Ints) -> Doubles:
    """-log2 of the chance that a random training impression is of the item, shape (items,), bits.

    One impression is added to each item: what was never shown is novel, not infinitely so.
    Source: Vargas and Castells, "Rank and Relevance in Novelty and Diversity Metrics for
    Recommender Systems", RecSys 2011 (free discovery).
    """
    bits: Doubles = np.log2(impressions.sum() + len(impressions)) - np.log2(impressions + 1.0)
    return bits


def gini(exposure: Ints) -> float:
    """Gini coefficient of exposure over all items, those never shown included, in [0, 1).

    Args: exposure: shape (items,), not negative, not all 0.
    """
    ascending = np.sort(exposure).astype(np.float64)
    n = len(ascending)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ascending / (n * ascending.sum()))


def _descending_rank(impressions: Ints) -> Doubles:
    """Midrank of each item, 0.5 for a single most popular one: ties share theirs."""
    ascending = np.sort(impressions)
    above = len(impressions) - np.searchsorted(ascending, impressions, "right")
    level = np.searchsorted(ascending, impressions, "right") - np.searchsorted(
        ascending, impressions, "left"
    )
    middle: Doubles = above + level / 2
    return middle


def _means(recommended: Ints, values: Doubles) -> Doubles:
    """Mean value of each list's items, shape (q,). Args: values: shape (items,)."""
    present = recommended != ABSENT
    size = present.sum(axis=1)
    total = np.where(present, values[recommended], 0.0).sum(axis=1)
    mean: Doubles = np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0)
    return mean
