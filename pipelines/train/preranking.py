"""A ranker's linear stand-in: what cuts candidates before they have full vectors.

Distilled, not trained on clicks: it learns what the ranker orders candidates by, on the rows that
the ranker learned from. Columns that are the same for all candidates of a request are controls in
the regression and then left out, so a weight tells what differs between the candidates of one.

Source: Tang and Wang, "Ranking Distillation", KDD 2018, with scores in place of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from rankstream.contracts.manifest import Utility
from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL, PARTIAL_NAMES
from rankstream.ranking.scoring import expected_utility

Floats = npt.NDArray[np.float32]

ROWS_MAX: Final = 100_000
PENALTY: Final = 10.0
OF_CANDIDATES: Final = ("item_", "category_", "user_category_", "user_item_")
CONTROLS: Final = tuple(
    place for place, name in enumerate(spec.NAMES) if not name.startswith(OF_CANDIDATES)
)


def fit_prerank(
    scores: Callable[[Floats], list[Floats]],
    features: Floats,
    utility: Utility | None = None,
    *,
    seed: int,
) -> dict[str, float]:
    """Weights by the name of each of PARTIAL, in the features' own units.

    Args:
        scores: features to logit, pctr and, of a ranker with a utility, pcvr.
        features: shape (n, spec.WIDTH), n > 0; ROWS_MAX of them are used.
    """
    chosen = np.random.default_rng(seed).permutation(len(features))[:ROWS_MAX]
    rows = np.ascontiguousarray(features[chosen])
    target, *probabilities = scores(rows)
    if utility is not None:
        value = np.zeros(1, np.float32)
        if utility.value:
            value = rows[:, spec.NAMES.index(utility.value)]
        target = expected_utility(utility, probabilities[0], probabilities[1], value)
    columns = rows[:, [*PARTIAL, *CONTROLS]].astype(np.float64)
    spread = columns.std(axis=0)
    scale = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
    fit = Ridge(alpha=PENALTY).fit((columns - columns.mean(axis=0)) * scale, target)
    weights = np.asarray(fit.coef_ * scale)[: len(PARTIAL)]
    return dict(zip(PARTIAL_NAMES, weights.tolist(), strict=True))
