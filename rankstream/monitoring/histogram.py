"""Fixed-bin histograms of a feature: mergeable, replayable, enough for PSI and KS.

The bins come from the quantiles of a reference once and stay. A value is in one of k + 3 bins,
where k is the number of edges:

    below | e0 | (e0, e1] | ... | (e_{k-2}, e_{k-1}] | above | missing

`below` and `above` are unseen: the reference had no such value. The smallest reference value has a
bin of its own, because a counter's zero is a mass and not the end of a range. NaN is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from rankstream.errors import InvalidArtifact

REFERENCE_BINS = 20
UNSEEN_AND_MISSING = 3

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of one feature over bins fixed by `edges`.

    `edges` float64, shape (k,), strictly ascending; `counts` int64, shape (k + 3,). Counts are
    integers, so merging is associative and a replay is bit-equal.
    """

    edges: npt.NDArray[np.float64]
    counts: Counts

    @property
    def n(self) -> int:
        """Values counted, missing ones included."""
        return int(self.counts.sum())

    @property
    def missing(self) -> int:
        """Values that were NaN."""
        return int(self.counts[-1])

    @property
    def unseen(self) -> int:
        """Values outside the range of the reference."""
        return int(self.counts[0] + self.counts[-2])

    def add(self, values: Floats) -> Self:
        """This histogram and `values`, shape (n,)."""
        bins = bin_of(self.edges, values)
        return type(self)(self.edges, self.counts + np.bincount(bins, minlength=len(self.counts)))

    def merge(self, other: Self) -> Self:
        """Both histograms together; they must share their edges."""
        assert np.array_equal(self.edges, other.edges), "only histograms with equal edges merge"
        return type(self)(self.edges, self.counts + other.counts)

    def empty(self) -> Self:
        """The same bins with nothing counted."""
        return type(self)(self.edges, np.zeros_like(self.counts))

    def encode(self) -> dict[str, list[float] | list[int]]:
        """JSON form: what a model's manifest holds under `feature_histograms`."""
        return {"edges": self.edges.tolist(), "counts": self.counts.tolist()}


def reference_histogram(values: Floats, *, bins: int = REFERENCE_BINS) -> Histogram:
    """Histogram of a reference sample, with edges at its own quantiles.

    Args:
        values: shape (n,), any float; NaN counts as missing, infinities as unseen.
        bins: quantile bins; ties of the sample make them fewer.
    """
    assert bins >= 1, "a histogram has at least one bin"
    sample = np.asarray(values, dtype=np.float64)
    finite = sample[np.isfinite(sample)]
    if len(finite):
        # An order statistic, not an interpolation: an edge is a value that occurred, so a point
        # mass is closed by its own value.
        levels = np.linspace(0.0, 1.0, bins + 1)
        edges = np.unique(np.quantile(finite, levels, method="inverted_cdf"))
    else:
        edges = np.empty(0)
    return Histogram(edges, np.zeros(len(edges) + UNSEEN_AND_MISSING, dtype=np.int64)).add(sample)


def decode_histogram(edges: Sequence[float], counts: Sequence[int]) -> Histogram:
    """The histogram that `Histogram.encode` wrote.

    Raises: InvalidArtifact if edges do not ascend or counts do not fit them.
    """
    edge = np.asarray(edges, dtype=np.float64)
    count = np.asarray(counts, dtype=np.int64)
    if edge.ndim != 1 or not np.isfinite(edge).all() or (np.diff(edge) <= 0).any():
        raise InvalidArtifact(
            f"invalid_artifact: histogram edges must be finite and ascend, got {edges!r:.80}."
            " Not used. Write it with Histogram.encode."
        )
    if count.shape != (len(edge) + UNSEEN_AND_MISSING,) or (count < 0).any():
        raise InvalidArtifact(
            f"invalid_artifact: histogram of {len(edge)} edges needs"
            f" {len(edge) + UNSEEN_AND_MISSING} counts >= 0, got {counts!r:.80}."
            " Not used. Write it with Histogram.encode."
        )
    return Histogram(edge, count)


def bin_of(edges: npt.NDArray[np.float64], values: Floats) -> npt.NDArray[np.intp]:
    """Bin number of each value in [0, k + 3), shape of `values`; see the module for the layout."""
    sample = np.asarray(values, dtype=np.float64)
    bins = 1 + np.searchsorted(edges, sample, side="left")
    if len(edges):
        bins[sample < edges[0]] = 0
    bins[np.isnan(sample)] = len(edges) + 2
    return bins
