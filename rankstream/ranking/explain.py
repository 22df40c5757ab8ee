"""Why an item scored as it did: what each feature added to its logit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

METHOD: Final = "occlusion_to_training_mean"
# Bounds the memory of one call of the model: 4096 x 55 float32 are 0.9 MB.
ROWS_PER_CALL: Final = 4096


def contributions(logit_of: Callable[[Floats], Floats], features: Floats, means: Floats) -> Floats:
    """How far the logit falls when one feature is set to its mean in the training data.

    Exact for a linear model, where the contributions of an item and the logit of the means sum to
    its logit; for others it leaves interactions out.

    Args:
        logit_of: the model: shape (r, d) -> (r,).
        features: shape (n, d), as they were scored.
        means: shape (d,), the manifest's feature_means.

    Returns: shape (n, d), in logits.

    >>> weights = np.array([2.0, -1.0], np.float32)
    >>> x, means = np.array([[3.0, 1.0]], np.float32), np.ones(2, np.float32)
    >>> contributions(lambda rows: rows @ weights, x, means).tolist()
    [[4.0, 0.0]]
    """
    n, d = features.shape
    base = logit_of(features)
    occluded = np.concatenate(
        [logit_of(rows) for rows in _occluded(features, means)] or [np.empty(0, np.float32)]
    )
    out: Floats = (base[:, None] - occluded.reshape(n, d)).astype(np.float32)
    return out


def _occluded(features: Floats, means: Floats) -> Iterator[Floats]:
    """Every item d times, the j-th time with feature j at its mean, in blocks of whole items."""
    n, d = features.shape
    items = max(1, ROWS_PER_CALL // d)
    diagonal = np.arange(d)
    for start in range(0, n, items):
        block = np.repeat(features[start : start + items, None, :], d, axis=1)
        block[:, diagonal, diagonal] = means
        yield block.reshape(-1, d)
