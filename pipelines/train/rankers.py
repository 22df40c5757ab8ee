"""Rankers: logistic regression (champion) and gradient-boosted trees (challenger)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb
from sklearn.linear_model import LogisticRegression

from pipelines.train.graphs import Trees, linear_graph, tree_graph
from rankstream.errors import InvalidInput

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

VALIDATION_SHARE: Final = 0.1
ROUNDS_MAX: Final = 400
EARLY_STOPPING_ROUNDS: Final = 20
MAX_BIN: Final = 64
INVERSE_PENALTY: Final = 0.1


@dataclass(frozen=True, eq=False)
class Ranker:
    """A fitted model: `predict` maps features, shape (n, d), to pctr, float64, shape (n,)."""

    family: str
    graph: bytes
    predict: Callable[[Floats], npt.NDArray[np.float64]]
    parameters: Mapping[str, str | float | int]


def check_rows(features: Floats, clicked: npt.NDArray[Any]) -> None:
    """Return if a ranker can be fitted on these rows.

    Raises: InvalidInput: no rows, labels that are not 0 or 1 (nan), one class only, or a feature
        that is not finite; nothing is fitted.
    """
    label = np.asarray(clicked, np.float64)
    bad = np.flatnonzero(~np.isin(label, (0.0, 1.0)))
    if len(bad):
        raise _invalid(f"the label of row {bad[0]} is {label[bad[0]]}, not 0 or 1")
    if not len(label) or label.min() == label.max():
        raise _invalid(f"{len(label)} rows, {int(label.sum())} of them clicked: one class only")
    rows, places = np.nonzero(~np.isfinite(features))
    if len(rows):
        raise _invalid(f"feature {places[0]} of row {rows[0]} is {features[rows[0], places[0]]}")


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(
        f"invalid_input: {problem}. No model was trained or registered. Mend the rows."
    )


def fit_logistic_regression(features: Floats, clicked: Labels, *, seed: int) -> Ranker:
    """Logistic regression on standardised features; a constant feature gets no weight.

    Args:
        features: shape (n, d); clicked: shape (n,), 0 or 1.

    Raises: InvalidInput, as check_rows.
    """
    check_rows(features, clicked)
    mean = features.mean(axis=0, dtype=np.float64)
    spread = features.std(axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=200, random_state=seed)
    model.fit((features - mean) * scale, clicked)
    weight, bias = model.coef_[0], float(model.intercept_[0])

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        probability: npt.NDArray[np.float64] = model.predict_proba((rows - mean) * scale)[:, 1]
        return probability

    return Ranker(
        family="logistic_regression",
        graph=linear_graph(mean, scale, weight, bias),
        predict=predict,
        parameters={"inverse_penalty": INVERSE_PENALTY, "seed": seed},
    )


def fit_xgboost(features: Floats, clicked: Labels, *, seed: int) -> Ranker:
    """Boosted trees on log loss, stopped early on the last tenth of the rows, in order of time.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.

    Raises: InvalidInput, as check_rows, for the fitted part as well.
    """
    cut = round(len(clicked) * (1 - VALIDATION_SHARE))
    check_rows(features, clicked)
    check_rows(features[:cut], clicked[:cut])
    names = [f"f{k}" for k in range(features.shape[1])]
    parameters = _boosting(seed)
    # More threads lose here: rounds this small spend their time waiting for each other.
    data = xgb.QuantileDMatrix(
        features[:cut], clicked[:cut], feature_names=names, max_bin=MAX_BIN, nthread=1
    )
    validation = xgb.QuantileDMatrix(
        features[cut:], clicked[cut:], feature_names=names, max_bin=MAX_BIN, nthread=1, ref=data
    )
    booster = xgb.train(
        {**parameters, "nthread": 1},
        data,
        num_boost_round=ROUNDS_MAX,
        evals=[(validation, "validation")],
        early_stopping_rounds=EARLY_STOPPING_ROUNDS,
        verbose_eval=False,
    )
    # An export takes every tree, those after the best round too: cut them off first.
    best = booster[: booster.best_iteration + 1]

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        return np.asarray(best.predict(xgb.DMatrix(rows, feature_names=names)), np.float64)

    return Ranker(
        family="xgboost",
        graph=tree_graph(trees_of(best), features.shape[1]),
        predict=predict,
        parameters={**parameters, "trees": best.num_boosted_rounds()},
    )


def _boosting(seed: int) -> dict[str, str | float | int]:
    return {
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "max_depth": 4,
        "max_bin": MAX_BIN,
        "learning_rate": 0.1,
        "min_child_weight": 20.0,
        "subsample": 0.8,
        "colsample_bytree": 0.6,
        "reg_lambda": 5.0,
        "seed": seed,
    }


def trees_of(booster: xgb.Booster) -> Trees:
    """The trees of a binary booster, node by node."""
    model = json.loads(booster.save_raw("json"))["learner"]
    probability = float(str(model["learner_model_param"]["base_score"]).strip("[]"))
    trees = model["gradient_booster"]["model"]["trees"]
    sizes = [len(tree["left_children"]) for tree in trees]

    def column(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.concatenate([np.array(tree[name], dtype) for tree in trees])

    return Trees(
        tree=np.repeat(np.arange(len(trees)), sizes),
        node=np.concatenate([np.arange(size) for size in sizes]),
        left=column("left_children", np.int64),
        right=column("right_children", np.int64),
        feature=column("split_indices", np.int64),
        value=column("split_conditions", np.float32),
        missing_left=column("default_left", np.int64),
        base_logit=float(np.log(probability / (1.0 - probability))),
    )
