"""What a network sees of a feature: where its value stands among those of the training rows.

Piecewise linear encoding: a feature is cut at its quantiles, and each piece says how much of it the
value has passed, 0 to 1. It does not matter whether a feature came as it is or as its logarithm, an
outlier is held at the last quantile, and a linear function of the pieces is any broken line.

Source: Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep
Learning", NeurIPS 2022, section 3.1; without its open ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

SAMPLE_ROWS_MAX: Final = 100_000
# Of a feature's range: narrower pieces are a step in float32, and nothing in float16.
PIECE_MIN: Final = 1e-4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoding:
    """k pieces; arrays of shape (k,): clip((features[:, feature] - low) * scale, 0, 1)."""

    feature: npt.NDArray[np.int64]
    low: Floats
    scale: Floats

    def __len__(self) -> int:
        return len(self.feature)


def encoding_of(features: Floats, *, pieces: int) -> Encoding:
    """At most `pieces` pieces a feature, as many rows in each; a constant feature has none.

    Args:
        features: shape (n, d), n > 0; of many rows, evenly spaced ones are read.
    """
    sample = features[:: -(-len(features) // SAMPLE_ROWS_MAX)]
    edges = np.quantile(sample, np.linspace(0.0, 1.0, pieces + 1), axis=0, method="nearest")
    feature, low, scale = [], [], []
    for place, column in enumerate(edges.T):
        kept = _apart(column.astype(np.float64))
        width = np.diff(kept)
        feature.append(np.full(len(width), place))
        low.append(kept[:-1])
        scale.append(1.0 / width)
    return Encoding(
        np.concatenate(feature).astype(np.int64),
        np.concatenate(low).astype(np.float32),
        np.concatenate(scale).astype(np.float32),
    )


def _apart(ascending: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The first of them, and each that is PIECE_MIN of their range above the one kept before."""
    kept = [float(ascending[0])]
    least = PIECE_MIN * float(ascending[-1] - ascending[0])
    for edge in ascending[1:].tolist():
        if edge - kept[-1] > least:
            kept.append(edge)
    return np.array(kept)
