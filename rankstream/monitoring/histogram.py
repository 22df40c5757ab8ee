"""Fixed-bin histograms of a feature: mergeable, replayable, enough for PSI and KS.

The bins come from a reference once and stay. With k edges there are k + 2 bins, closed on the left:

    (-inf, e0) | [e0, e1) | ... | [e_{k-2}, e_{k-1}) | [e_{k-1}, inf) | missing

The first k + 1 are those of a manifest's training histogram; NaN is missing. `reference_histogram`
puts its outermost edges around all values of the reference, so its two open bins are what the
reference never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from rankstream.contracts import manifest
from rankstream.errors import InvalidArtifact

REFERENCE_BINS = 20

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of one feature over bins fixed by `edges`.

    `edges` float64, shape (k,), strictly ascending; `counts` int64, shape (k + 2,). Counts are
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
    def outside(self) -> int:
        """Values below the first or from the last edge on."""
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


def reference_histogram(values: Floats, *, bins: int = REFERENCE_BINS) -> Histogram:
    """Histogram of a reference sample, with edges at its own quantiles.

    Args:
        values: shape (n,), any float; infinities lie outside, NaN is missing.
        bins: quantile bins. Ties make them fewer; a value that fills a whole bin gets one of its
            own, because a counter's zero is a mass and not the end of a range.
    """
    assert bins >= 1, "a histogram has at least one bin"
    sample = np.asarray(values, dtype=np.float64)
    finite = sample[np.isfinite(sample)]
    edges = np.empty(0)
    if len(finite):
        # Order statistics, not interpolations: an edge is a value that occurred.
        levels = np.quantile(finite, np.linspace(0.0, 1.0, bins + 1), method="inverted_cdf")
        ends = np.append(levels[1:][np.diff(levels) == 0], levels[-1])
        edges = np.unique(np.concatenate([levels, np.nextafter(ends, np.inf)]))
    return Histogram(edges, np.zeros(len(edges) + 2, dtype=np.int64)).add(sample)


def encode_histogram(histogram: Histogram) -> manifest.Histogram:
    """The form that a manifest holds; it has no place for missing values, so there must be none."""
    assert histogram.missing == 0, "a training feature has a default instead of a missing value"
    return manifest.Histogram(
        edges=tuple(histogram.edges.tolist()), counts=tuple(histogram.counts[:-1].tolist())
    )


def decode_histogram(stored: manifest.Histogram) -> Histogram:
    """The histogram that a manifest holds.

    Raises: InvalidArtifact if edges do not ascend or counts do not fit them.
    """
    edges = np.asarray(stored.edges, dtype=np.float64)
    counts = np.asarray(stored.counts, dtype=np.int64)
    if (np.diff(edges) <= 0).any():
        raise InvalidArtifact(
            f"invalid_artifact: histogram edges must ascend, got {stored.edges!r:.80}."
            " Not used. Write it with encode_histogram."
        )
    if counts.shape != (len(edges) + 1,) or (counts < 0).any():
        raise InvalidArtifact(
            f"invalid_artifact: histogram of {len(edges)} edges needs {len(edges) + 1} counts >= 0,"
            f" got {stored.counts!r:.80}. Not used. Write it with encode_histogram."
        )
    return Histogram(edges, np.append(counts, 0))


def bin_of(edges: npt.NDArray[np.float64], values: Floats) -> npt.NDArray[np.intp]:
    """Bin number of each value in [0, k + 2), shape of `values`; see the module for the layout."""
    sample = np.asarray(values, dtype=np.float64)
    bins = np.searchsorted(edges, sample, side="right")
    bins[np.isnan(sample)] = len(edges) + 1
    return bins
