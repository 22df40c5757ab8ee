"""Held-out impressions whose users differ and models of known quality, for tests of evidence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.comparison import Comparison, Latency, compare
from pipelines.evaluate.impressions import Doubles, Impressions, Ints
from pipelines.evaluate.weighted import Statistic

QUICK = Latency(ms_p99=4.0, n=1_000)


def sigmoid(logit: Doubles) -> Doubles:
    probability: Doubles = 1 / (1 + np.exp(-logit))
    return probability


def clustered(
    rng: np.random.Generator, *, users: int = 200, rows_mean: float = 10.0, spread: float = 1.0
) -> tuple[npt.NDArray[np.uint8], Ints, Doubles]:
    """(clicked, user, true logit): users differ in how much they click and in how many rows."""
    user = np.repeat(np.arange(users), 1 + rng.poisson(rows_mean - 1, users))
    logit = rng.normal(-1.5, spread, users)[user] + rng.normal(0, 1, len(user))
    clicked = (rng.random(len(user)) < sigmoid(logit)).astype(np.uint8)
    return clicked, user, logit


def a_comparison(*, seed: int = 1, users: int = 400, replicates: int = 200) -> Comparison:
    """`incumbent` and four candidates: `better` passes, `equal` is noise apart from it,
    `overconfident` ranks as `better` and is not calibrated, `broken` predicts nan.
    """
    rng = np.random.default_rng(seed)
    clicked, user, logit = clustered(rng, users=users)
    noisy = 0.5 * logit - 0.7
    country = np.where(user % 50 == 0, "nz", np.where(user % 2 == 0, "de", "fr"))
    return compare(
        Impressions.of(clicked, user, user),
        {
            "incumbent": sigmoid(noisy + rng.normal(0, 0.8, len(user))),
            "better": sigmoid(logit),
            "equal": sigmoid(noisy + rng.normal(0, 0.8, len(user))),
            "overconfident": sigmoid(2.5 * logit),
            "broken": np.full(len(user), np.nan),
        },
        incumbent="incumbent",
        slices={"country": country},
        latency=dict.fromkeys(("better", "equal", "overconfident"), QUICK),
        replicates=replicates,
        seed=seed,
    )


def naive_replicates(statistic: Statistic, weights: Ints) -> list[float]:
    """A statistic under each weighting, one at a time."""
    return [float(statistic(row[None, :].astype(np.float64))[0]) for row in weights]
