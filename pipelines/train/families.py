"""Which rankers there are, and how one of them becomes what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import ranker_metrics
from pipelines.features.replay import TrainingRows
from pipelines.train.artefact import ranker_parity
from pipelines.train.networks import Size
from pipelines.train.neural import Run
from pipelines.train.neural_rankers import fit_mmoe, fit_wide_deep
from pipelines.train.precision import Precision, Variant, chosen, variants
from pipelines.train.rankers import Ranker, fit_logistic_regression
from pipelines.train.sampling import fit_on_fewer, kept_rows, weights_of
from pipelines.train.trees import fit_lightgbm, fit_random_forest, fit_xgboost
from rankstream.contracts.manifest import Utility
from rankstream.features import spec

PRICE: Final = "item_price"


class Family(StrEnum):
    """Rankers that can be trained."""

    LOGISTIC_REGRESSION = "logistic_regression"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    RANDOM_FOREST = "random_forest"
    WIDE_DEEP = "wide_deep"
    MMOE = "mmoe"


# Those that learn from clicks alone.
FITS: Final[Mapping[Family, Callable[..., Ranker]]] = {
    Family.LOGISTIC_REGRESSION: fit_logistic_regression,
    Family.XGBOOST: fit_xgboost,
    Family.LIGHTGBM: fit_lightgbm,
    Family.RANDOM_FOREST: fit_random_forest,
    Family.WIDE_DEEP: fit_wide_deep,
}


@dataclass(frozen=True)
class Networks:
    """How rankers that are networks are made; others take no notice.

    `purchase_weight` is what a purchase of value 1 is worth in clicks.
    """

    size: Size = Size.SMALL
    precision: Precision = Precision.FLOAT32
    purchase_weight: float = 1.0


DEFAULT_NETWORKS: Final = Networks()
NETWORKS: Final = (Family.WIDE_DEEP, Family.MMOE)


@dataclass(frozen=True, eq=False)
class Served:
    """A ranker with the graph that is to be served, how far that is off, and all precisions."""

    ranker: Ranker
    parity: float
    narrowed: Mapping[Precision, Variant]


def fitted(
    family: Family, rows: TrainingRows, share: float, networks: Networks, *, seed: int, run: Run
) -> Ranker:
    """Raises: InvalidInput, as the fit."""
    if family is not Family.MMOE:
        fit = FITS[family]
        if family is Family.WIDE_DEEP:
            fit = partial(fit, size=networks.size, run=run)
        return fit_on_fewer(fit, rows.features, rows.clicked, share=share, seed=seed)
    kept = rows if share == 1.0 else rows.take(kept_rows(rows.clicked, share, seed=seed))
    ranker = fit_mmoe(
        kept.features,
        kept.clicked,
        kept.purchased,
        seed=seed,
        weight=weights_of(kept.clicked, share),
        size=networks.size,
        run=run,
    )
    return replace(ranker, parameters={**ranker.parameters, "negatives": share})


def served(
    ranker: Ranker, features: npt.NDArray[np.float32], precision: Precision, *, seed: int
) -> Served:
    """Raises: InvalidArtifact: the graph, or that of the precision, is off by too much."""
    parity = ranker_parity(ranker, features, seed=seed)
    if Family(ranker.family) not in NETWORKS:
        return Served(ranker, parity, {})
    found = variants(ranker.graph, features, seed=seed)
    variant = chosen(found, precision)
    parameters = {**ranker.parameters, "precision": precision.value}
    ranker = replace(ranker, graph=variant.graph, parameters=parameters)
    return Served(ranker, max(parity, variant.max_abs), found)


def utility_of(ranker: Ranker, rows: TrainingRows, purchase_weight: float) -> Utility | None:
    """The weights of the manifest; items without a price count as the mean of those with one."""
    if ranker.predict_pcvr is None:
        return None
    price = rows.features[:, spec.NAMES.index(PRICE)]
    known = price[price > 0]
    if not len(known):
        return Utility(click=1.0, purchase=purchase_weight)
    mean = float(known.mean(dtype=np.float64))
    return Utility(click=1.0, purchase=purchase_weight, value=PRICE, value_default=mean)


def purchase_metrics(ranker: Ranker, rows: TrainingRows) -> dict[str, float]:
    """Metrics of pcvr by name, pcvr_auc and so on, where it is known who bought."""
    known = rows.take(np.flatnonzero(rows.purchased >= 0))
    if ranker.predict_pcvr is None or len(np.unique(known.purchased)) < 2:
        return {}
    bought, pcvr = known.purchased.astype(np.uint8), ranker.predict_pcvr(known.features)
    found = ranker_metrics(bought, pcvr, known.user)
    return {f"pcvr_{name}": value for name, value in found.items()}
