"""Rankers that are trees: XGBoost, LightGBM and a random forest, exported node by node.

No converter in between: what the libraries say of their own nodes is all that a graph needs, and
thresholds are rounded so that float32 rows fall on the side where the library puts them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import xgboost as xgb
from sklearn.ensemble import RandomForestClassifier

from pipelines.train.graphs import PROBABILITY_MIN, Trees, tree_graph
from pipelines.train.rankers import Floats, Labels, Parameters, Ranker, Weights, check_rows

VALIDATION_SHARE: Final = 0.1
ROUNDS_MAX: Final = 400
EARLY_STOPPING_ROUNDS: Final = 20
MAX_BIN: Final = 64
FOREST_TREES: Final = 100
FOREST_DEPTH: Final = 10
FOREST_LEAF_ROWS: Final = 50
# Of the bootstrap sample of a tree: a hundred trees on ten million rows each take hours.
FOREST_ROWS_MAX: Final = 500_000
# Rounds this small spend their time waiting for each other with more.
THREADS: Final = 1
BOOSTING: Final[Mapping[str, str | float | int]] = {
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
}
LEAF_WISE: Final[Mapping[str, str | float | int]] = {
    "objective": "binary",
    "num_leaves": 31,
    "max_bin": MAX_BIN - 1,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.4,
    "lambda_l2": 5.0,
    "deterministic": "true",
    "num_threads": THREADS,
    "verbosity": -1,
}

Margins = npt.NDArray[np.floating]


class Likelihood(Protocol):
    """What boosting is to learn if the label is not drawn with pctr itself.

    `rows` is a part of the rows that are fitted on; `margin`, shape (n,), their logits so far.
    """

    def slopes(self, margin: Margins, rows: slice) -> tuple[Weights, Weights]:
        """First and second derivatives of the loss by the logit, float64, each of its shape."""
        ...

    def loss(self, margin: Margins, rows: slice) -> float:
        """Mean loss."""
        ...


def checked_cut(features: Floats, clicked: Labels) -> int:
    """Where the validation rows begin: the last tenth, in order of time.

    Raises: InvalidInput, as check_rows, for the part before as well.
    """
    cut = round(len(clicked) * (1 - VALIDATION_SHARE))
    check_rows(features, clicked)
    check_rows(features[:cut], clicked[:cut])
    return cut


def fit_xgboost(
    features: Floats,
    clicked: Labels,
    *,
    seed: int,
    sample_weight: Weights | None = None,
    tuned: Parameters | None = None,
    likelihood: Likelihood | None = None,
) -> Ranker:
    """Boosted trees on log loss, of all rows; the last tenth, in order of time, says how many.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0; None is 1 for every row.
        tuned: parameters in place of those that it has.
        likelihood: takes the place of log loss and of the weights, which it is to know itself.

    Raises: InvalidInput, as check_rows, for the fitted part as well.
    """
    cut = checked_cut(features, clicked)
    names = [f"f{k}" for k in range(features.shape[1])]
    parameters = {**BOOSTING, **(tuned or {}), "seed": seed}
    early, late, everything = slice(cut), slice(cut, None), slice(None)

    def matrix(rows: slice, ref: xgb.DMatrix | None = None) -> xgb.QuantileDMatrix:
        return xgb.QuantileDMatrix(
            features[rows],
            clicked[rows],
            weight=None if sample_weight is None else sample_weight[rows],
            feature_names=names,
            max_bin=MAX_BIN,
            nthread=THREADS,
            ref=ref,
        )

    used = {**parameters, "nthread": THREADS} | ({} if likelihood is None else _OF_LIKELIHOOD)
    data = matrix(early)
    stopped = xgb.train(
        used,
        data,
        num_boost_round=ROUNDS_MAX,
        evals=[(matrix(late, data), "validation")],
        early_stopping_rounds=EARLY_STOPPING_ROUNDS,
        verbose_eval=False,
        **_learning(likelihood, early, late),
    )
    rounds = stopped.best_iteration + 1
    del stopped, data
    # The newest rows are most like those to come: what they have judged is fitted anew with them.
    booster = xgb.train(
        used,
        matrix(everything),
        num_boost_round=rounds,
        **_learning(likelihood, everything),
    )

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        return np.asarray(booster.predict(xgb.DMatrix(rows, feature_names=names)), np.float64)

    def shapley(rows: Floats) -> npt.NDArray[np.float64]:
        given = xgb.DMatrix(rows, feature_names=names)
        return np.asarray(booster.predict(given, pred_contribs=True)[:, :-1], np.float64)

    return Ranker(
        family="xgboost",
        graph=tree_graph(xgboost_trees(booster), features.shape[1]),
        predict=predict,
        parameters={**parameters, "trees": rounds},
        shapley=shapley,
    )


# The objective stays: it makes probabilities of margins. Without labels of its own there is no
# prior click rate to begin with.
_OF_LIKELIHOOD: Final = {"base_score": 0.5, "disable_default_eval_metric": True}


def _learning(
    likelihood: Likelihood | None, fitted: slice, held: slice | None = None
) -> dict[str, Any]:
    if likelihood is None:
        return {}
    objective = {"obj": lambda margin, data: likelihood.slopes(margin, fitted)}
    if held is None:
        return objective
    # The last metric is the one that stops.
    return {
        **objective,
        "custom_metric": lambda margin, data: ("loss", likelihood.loss(margin, held)),
    }


def xgboost_trees(booster: xgb.Booster) -> Trees:
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
        base=float(np.log(probability / (1.0 - probability))),
    )


def fit_lightgbm(
    features: Floats,
    clicked: Labels,
    *,
    seed: int,
    sample_weight: Weights | None = None,
    tuned: Parameters | None = None,
) -> Ranker:
    """Boosted trees grown leaf by leaf, of all rows; the last tenth says how many.

    Args:
        features: shape (n, d), in order of time; clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0; None is 1 for every row.
        tuned: parameters in place of those that it has.

    Raises: InvalidInput, as check_rows, for the fitted part as well.
    """
    cut = checked_cut(features, clicked)
    parameters = {**LEAF_WISE, **(tuned or {}), "seed": seed}
    early, late = (None, None) if sample_weight is None else np.split(sample_weight, [cut])
    data = lgb.Dataset(
        features[:cut],
        clicked[:cut],
        weight=early,
        params=parameters,
        free_raw_data=False,
    )
    validation = lgb.Dataset(features[cut:], clicked[cut:], weight=late, reference=data)
    rounds = lgb.train(
        parameters,
        data,
        num_boost_round=ROUNDS_MAX,
        valid_sets=[validation],
        callbacks=[lgb.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
    ).best_iteration
    del data, validation
    everything = lgb.Dataset(features, clicked, weight=sample_weight, params=parameters)
    booster = lgb.train(parameters, everything, num_boost_round=rounds)

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        return np.asarray(booster.predict(rows), np.float64)

    def shapley(rows: Floats) -> npt.NDArray[np.float64]:
        return np.asarray(booster.predict(rows, pred_contrib=True), np.float64)[:, :-1]

    return Ranker(
        family="lightgbm",
        graph=tree_graph(lightgbm_trees(booster, rounds), features.shape[1]),
        predict=predict,
        parameters={**parameters, "trees": rounds},
        shapley=shapley,
    )


def lightgbm_trees(booster: lgb.Booster, rounds: int) -> Trees:
    """The first `rounds` trees of a binary booster, node by node."""
    nodes: list[tuple[int, int, int, int, int, float]] = []
    for number, tree in enumerate(booster.dump_model(num_iteration=rounds)["tree_info"]):
        _flatten(tree["tree_structure"], number, nodes, first=len(nodes))
    return _leq_trees(*(np.array(column) for column in zip(*nodes, strict=True)))


def _flatten(
    node: dict[str, Any], tree: int, nodes: list[tuple[int, int, int, int, int, float]], first: int
) -> int:
    """Append a node and what is below it; its place in its tree."""
    place = len(nodes) - first
    if "leaf_value" in node:
        nodes.append((tree, place, -1, -1, 0, node["leaf_value"]))
        return place
    assert node["decision_type"] == "<=", node["decision_type"]
    nodes.append((tree, place, 0, 0, 0, 0.0))
    left = _flatten(node["left_child"], tree, nodes, first)
    right = _flatten(node["right_child"], tree, nodes, first)
    nodes[first + place] = (tree, place, left, right, node["split_feature"], node["threshold"])
    return place


def fit_random_forest(
    features: Floats, clicked: Labels, *, seed: int, sample_weight: Weights | None = None
) -> Ranker:
    """Means of trees grown on bootstrap samples; a robust second opinion, not a fast one.

    Args:
        features: shape (n, d); clicked: shape (n,), 0 or 1.
        sample_weight: shape (n,), above 0; None is 1 for every row.

    Raises: InvalidInput, as check_rows.
    """
    check_rows(features, clicked)
    parameters: dict[str, str | float | int] = {
        "n_estimators": FOREST_TREES,
        "max_depth": FOREST_DEPTH,
        "min_samples_leaf": FOREST_LEAF_ROWS,
        "max_features": "sqrt",
        "max_samples": min(len(clicked), FOREST_ROWS_MAX),
    }
    model = RandomForestClassifier(**parameters, random_state=seed, n_jobs=-1)
    model.fit(features, clicked, sample_weight=sample_weight)

    def predict(rows: Floats) -> npt.NDArray[np.float64]:
        share: npt.NDArray[np.float64] = model.predict_proba(rows)[:, 1]
        return np.clip(share, PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)

    return Ranker(
        family="random_forest",
        graph=tree_graph(forest_trees(model), features.shape[1]),
        predict=predict,
        parameters={**parameters, "seed": seed},
    )


def forest_trees(model: RandomForestClassifier) -> Trees:
    """The trees of a binary forest, node by node; each leaf holds its part of the mean."""
    trees = [estimator.tree_ for estimator in model.estimators_]
    sizes = [tree.node_count for tree in trees]
    left = np.concatenate([tree.children_left for tree in trees])
    share = np.concatenate([tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees])
    threshold = np.concatenate([tree.threshold for tree in trees])
    found = _leq_trees(
        np.repeat(np.arange(len(trees)), sizes),
        np.concatenate([np.arange(size) for size in sizes]),
        left,
        np.concatenate([tree.children_right for tree in trees]),
        np.concatenate([tree.feature for tree in trees]),
        np.where(left < 0, share / len(trees), threshold),
    )
    return replace(found, probability=True)


def _leq_trees(
    tree: npt.NDArray[np.int64],
    node: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    feature: npt.NDArray[np.int64],
    value: npt.NDArray[np.float64],
) -> Trees:
    """Trees whose rows go left up to a float64 threshold.

    A float32 row is at most a threshold exactly if it is at most the next float32 below it.
    """
    rounded = value.astype(np.float32)
    above = (left >= 0) & (rounded.astype(np.float64) > value)
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return Trees(
        tree=tree.astype(np.int64),
        node=node.astype(np.int64),
        left=left.astype(np.int64),
        right=right.astype(np.int64),
        feature=feature.astype(np.int64),
        value=rounded,
        missing_left=np.zeros(len(left), np.int64),
        base=0.0,
        ties_left=True,
    )
