"""Rankers that are networks: Wide & Deep on clicks, MMoE on clicks and purchases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from pipelines.train.checkpoint import Run
from pipelines.train.encoding import Encoding, encoding_of
from pipelines.train.networks import Network, Parameters, mmoe, size_of, wide_deep
from pipelines.train.neural import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Examples,
    fit_network,
    probabilities,
)
from pipelines.train.neural_graphs import mmoe_graph, wide_deep_graph
from pipelines.train.rankers import Floats, Labels, Ranker, Weights
from pipelines.train.shapes import SHAPES, Size
from pipelines.train.trees import checked_cut
from rankstream.errors import InvalidInput

ALONE: Final = Run()


def fit_wide_deep(
    features: Floats,
    clicked: Labels,
    *,
    seed: int,
    sample_weight: Weights | None = None,
    size: Size = Size.SMALL,
    run: Run = ALONE,
) -> Ranker:
    """Wide & Deep, stopped early on the last tenth of the rows, in order of time.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0; None: all alike.
        run: where its checkpoints are, and who hears of progress.

    Raises: InvalidInput, as check_rows, for the fitted part as well.
    """
    checked_cut(features, clicked)
    weight = _weight(clicked, sample_weight)
    labels = clicked.astype(np.int8)[:, None]
    examples = Examples(features, labels, np.ones(labels.shape, np.float32), weight)
    return _ranker(wide_deep(SHAPES[size]), wide_deep_graph, examples, seed, size, run)


def fit_mmoe(
    features: Floats,
    clicked: Labels,
    purchased: npt.NDArray[np.int8],
    *,
    seed: int,
    purchases_come: Floats | None = None,
    sample_weight: Weights | None = None,
    size: Size = Size.SMALL,
    run: Run = ALONE,
) -> Ranker:
    """MMoE, stopped early on the last tenth of the rows by the sum of both heads' log losses.

    Purchases that are still to come are part of the likelihood, after Chapelle, "Modeling Delayed
    Feedback in Display Advertising", KDD 2014, their delays being counted beforehand.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        purchased: shape (n,), 1, 0 or -1: not so far.
        purchases_come: shape (n,), in [0, 1], which share of purchases comes by a row's age. So
            who has not bought so far is a row of P(not so far) = 1 - share * pcvr, and no part of
            the loss where the share is 0. None: 0 wherever `purchased` is -1.
        sample_weight: shape (n,), above 0, of each row in both losses; None: all alike.
        run: where its checkpoints are, and who hears of progress.

    Raises: InvalidInput, as check_rows, for the fitted part and for known purchases as well.
    """
    cut = checked_cut(features, clicked)
    come = (purchased >= 0).astype(np.float32)
    if purchases_come is not None:
        come = np.where(purchased < 0, purchases_come, come)
    known = np.where(come[:cut] > 0, purchased[:cut] > 0, -1)
    if not (np.any(known == 1) and np.any(known == 0)):
        raise InvalidInput(
            f"invalid_input: of {cut} rows to fit, {np.count_nonzero(known == 1)} were followed by"
            f" a purchase and {np.count_nonzero(known == 0)} were not: one class only. No model"
            " was trained or registered. Train wide_deep, or a tree."
        )
    labels = np.stack([clicked > 0, purchased > 0], axis=1).astype(np.int8)
    seen = np.stack([np.ones_like(come), come], axis=1)
    examples = Examples(features, labels, seen, _weight(clicked, sample_weight))
    return _ranker(mmoe(SHAPES[size]), mmoe_graph, examples, seed, size, run)


def _weight(clicked: Labels, sample_weight: Weights | None) -> Floats:
    return (np.ones(len(clicked)) if sample_weight is None else sample_weight).astype(np.float32)


def _ranker(
    network: Network,
    graph: Callable[[Parameters, Encoding, int], bytes],
    examples: Examples,
    seed: int,
    size: Size,
    run: Run,
) -> Ranker:
    pieces = SHAPES[size].pieces
    encoding = encoding_of(examples.features, pieces=pieces)
    fitted = fit_network(network, encoding, examples, seed=seed, run=run)
    predict = probabilities(network, encoding, fitted.parameters)
    several = len(network.heads) > 1
    return Ranker(
        family=network.family,
        graph=graph(fitted.parameters, encoding, examples.features.shape[1]),
        predict=lambda rows: predict(rows)[:, 0],
        predict_pcvr=(lambda rows: predict(rows)[:, 1]) if several else None,
        parameters={
            "size": size.value,
            "weights": size_of(fitted.parameters),
            "pieces": pieces,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "epochs": fitted.epochs,
            "seed": seed,
        },
    )
