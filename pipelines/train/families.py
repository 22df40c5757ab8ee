"""Which rankers there are, and how one of them becomes what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipelines.evaluate.metrics import ranker_metrics
from pipelines.features.replay import TrainingRows
from pipelines.train.artefact import ranker_parity
from pipelines.train.calibration import Method, fit_calibrated
from pipelines.train.checkpoint import Run
from pipelines.train.corrections import (
    UNCORRECTED,
    Corrections,
    PositionBias,
    fit_corrected,
    row_weights,
)
from pipelines.train.precision import Precision, Variant, chosen, variants
from pipelines.train.rankers import Floats, Labels, Parameters, Ranker, fit_logistic_regression
from pipelines.train.sampling import kept_rows, weights_of
from pipelines.train.shapes import Size
from pipelines.train.trees import fit_lightgbm, fit_random_forest, fit_xgboost
from pipelines.train.weights import effective_rows
from rankstream.contracts.manifest import Utility
from rankstream.errors import InvalidInput
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


def _fit_wide_deep(features: Floats, clicked: Labels, **options: Any) -> Ranker:
    # JAX takes seconds to import, which a run without it need not wait for.
    from pipelines.train.neural_rankers import fit_wide_deep

    return fit_wide_deep(features, clicked, **options)


# Those that learn from clicks alone.
FITS: Final[Mapping[Family, Callable[..., Ranker]]] = {
    Family.LOGISTIC_REGRESSION: fit_logistic_regression,
    Family.XGBOOST: fit_xgboost,
    Family.LIGHTGBM: fit_lightgbm,
    Family.RANDOM_FOREST: fit_random_forest,
    Family.WIDE_DEEP: _fit_wide_deep,
}


@dataclass(frozen=True)
class Networks:
    """How rankers that are networks are made; others take no notice.

    `purchase_weight` is what a purchase of value 1 is worth in clicks.
    """

    size: Size = Size.SMALL
    precision: Precision = Precision.FLOAT32
    purchase_weight: float = 1.0


@dataclass(frozen=True)
class Options:
    """How rankers are made.

    `negatives` is the share of impressions without a click that they are fitted on, in (0, 1];
    `corrections` are of where and how often rows were shown; `calibration` is on rows held out;
    `tuned` holds parameters of families, as a search has found them.
    """

    negatives: float = 1.0
    corrections: Corrections = UNCORRECTED
    calibration: Method = Method.BEST
    tuned: Mapping[Family, Parameters] = field(default_factory=dict)
    networks: Networks = Networks()


DEFAULTS: Final = Options()
NETWORKS: Final = (Family.WIDE_DEEP, Family.MMOE)


@dataclass(frozen=True, eq=False)
class Served:
    """A ranker with the graph that is to be served, how far that is off, and all precisions."""

    ranker: Ranker
    parity: float
    narrowed: Mapping[Precision, Variant]


def fitted(family: Family, rows: TrainingRows, options: Options, *, seed: int, run: Run) -> Ranker:
    """A ranker of rows in order of time, whose pctr is calibrated; its pcvr is as it was learned.

    Raises: InvalidInput, as fit_calibrated, fit_corrected and fit_mmoe.
    """

    def of_rows(places: npt.NDArray[np.intp]) -> Ranker:
        # A copy of all rows would be as large as they are.
        part = rows if len(places) == len(rows) else rows.take(places)
        if family is Family.MMOE:
            return _fit_mmoe(part, options, seed=seed, run=run)
        fit = FITS[family]
        if family is Family.WIDE_DEEP:
            fit = partial(fit, size=options.networks.size, run=run)
        elif family in options.tuned:
            fit = partial(fit, tuned=options.tuned[family])
        return fit_corrected(fit, part, options.corrections, negatives=options.negatives, seed=seed)

    method = options.calibration
    return fit_calibrated(of_rows, rows.features, rows.clicked, method=method, seed=seed)


def _fit_mmoe(rows: TrainingRows, options: Options, *, seed: int, run: Run) -> Ranker:
    """Both labels share the rows, so what is corrected is the rows' weight in both losses.

    Raises: InvalidInput: position bias, which is of clicks alone; as row_weights, kept_rows and
        fit_mmoe.
    """
    from pipelines.train.neural_rankers import fit_mmoe

    corrections, share = options.corrections, options.negatives
    if corrections.position is not PositionBias.IGNORE:
        raise InvalidInput(
            f"invalid_input: position bias {corrections.position} for mmoe, whose purchases it says"
            " nothing of (limit ignore). No model was trained. Choose ignore, or another family."
        )
    place = kept_rows(rows.clicked, share, seed=seed)
    kept = rows if share == 1.0 else rows.take(place)
    weight = weights_of(kept.clicked, share)
    told: dict[str, float] = {"negatives": share}
    if (corrected := row_weights(rows, corrections)) is not None:
        weight = weight * corrected[place]
        told["effective_rows"] = effective_rows(corrected)
    ranker = fit_mmoe(
        kept.features,
        kept.clicked,
        kept.purchased,
        purchases_come=kept.purchases_come,
        seed=seed,
        sample_weight=weight,
        size=options.networks.size,
        run=run,
    )
    return replace(ranker, parameters={**ranker.parameters, **told})


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
    """Metrics of pcvr by name, pcvr_auc and so on, where the window has closed."""
    known = rows.take(np.flatnonzero(rows.purchases_come == 1.0))
    if ranker.predict_pcvr is None or len(np.unique(known.purchased)) < 2:
        return {}
    bought, pcvr = known.purchased.astype(np.uint8), ranker.predict_pcvr(known.features)
    found = ranker_metrics(bought, pcvr, known.user)
    return {f"pcvr_{name}": value for name, value in found.items()}
