"""Vectors and queries like those of real towers: clustered, of few strong directions, unit length.

Items are a mixture of normal clusters. There are as many clusters as thousands of items; their
sizes are log-normal (sigma 1), and the standard deviation of dimension j falls as 1 / sqrt(j), of
the centres as of the noise around them, which is NOISE times theirs. A query is what a tower makes
of a history: the mean of TAKEN items of three clusters, taken with probabilities .6, .3 and .1.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

DIMENSIONS: Final = 64
NOISE: Final = 0.7
TAKEN: Final = 10
_ITEMS_PER_CLUSTER: Final = 1_000
_SHARES: Final = (0.6, 0.3, 0.1)
_BLOCK: Final = 262_144

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """m items, float32, shape (m, DIMENSIONS), and the cluster of each, shape (m,)."""

    vectors: Floats
    cluster: Ints


def draw_items(items: int, *, seed: int) -> Drawn:
    """Items of the mixture above."""
    rng = np.random.default_rng(seed)
    clusters = max(3, items // _ITEMS_PER_CLUSTER)
    spread = (1.0 / np.sqrt(1.0 + np.arange(DIMENSIONS))).astype(np.float32)
    centres = rng.standard_normal((clusters, DIMENSIONS), np.float32) * spread
    weight = rng.lognormal(0.0, 1.0, clusters)
    cluster = rng.choice(clusters, items, p=weight / weight.sum())
    vectors = centres[cluster]
    for start in range(0, items, _BLOCK):
        part = vectors[start : start + _BLOCK]
        part += np.float32(NOISE) * spread * rng.standard_normal(part.shape, np.float32)
    return Drawn(_unit(vectors), cluster)


def draw_queries(drawn: Drawn, queries: int, *, seed: int) -> Floats:
    """Queries of histories, shape (queries, DIMENSIONS)."""
    return _unit(drawn.vectors[draw_histories(drawn, queries, TAKEN, seed=seed)].mean(axis=1))


def draw_histories(drawn: Drawn, users: int, taken: int, *, seed: int) -> Ints:
    """The items that each user took, shape (users, taken)."""
    rng = np.random.default_rng(seed)
    order = np.argsort(drawn.cluster, kind="stable")
    ends = np.cumsum(np.bincount(drawn.cluster))
    found = np.empty((users, taken), np.int64)
    for history in found:
        of = drawn.cluster[rng.integers(0, len(order), len(_SHARES))]
        of = of[rng.choice(len(_SHARES), taken, p=_SHARES)]
        starts = np.where(of > 0, ends[of - 1], 0)
        history[:] = order[rng.integers(starts, ends[of])]
    return found


def _unit(vectors: Floats) -> Floats:
    for start in range(0, len(vectors), _BLOCK):
        part = vectors[start : start + _BLOCK]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors
