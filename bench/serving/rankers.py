"""The models that are served, fitted on rows of the catalogue, and published as a promotion is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from bench.serving.catalog import Catalog
from pipelines.train.artefact import served
from pipelines.train.graphs import tree_graph
from pipelines.train.precision import int8_graph
from pipelines.train.preranking import fit_prerank
from pipelines.train.shapes import Size
from pipelines.train.trees import xgboost_trees
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.adapters.onnx_model import RANKER_FILE
from rankstream.features import spec
from rankstream.features.rows import CONTEXT_ROW, empty_rows
from rankstream.features.snapshot import snapshot

ROWS: Final = 30_000
# Of Metarank's comparison: figure 1 of the issue counts on it.
TREES: Final = 300
DEPTH: Final = 6
NETWORK_ROWS: Final = 2_000


def training_rows(shop: Catalog, now_ms: int, seed: int) -> npt.NDArray[np.float32]:
    """Feature vectors of random pairs of a user and an item, shape (ROWS, spec.WIDTH)."""
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, len(shop.items), ROWS), rng.integers(0, len(shop.users), ROWS)
    items = shop.items[item]
    names = np.array([name.encode() for name in shop.category_names])
    order = np.argsort(names)
    of = order[np.searchsorted(names, items["category"], sorter=order)]
    around = np.broadcast_to(empty_rows(2, CONTEXT_ROW), (ROWS, 2))
    as_of = np.full(ROWS, now_ms, np.int64)
    return snapshot(shop.users[user], items, shop.categories[of], around, as_of)


def fit_trees(features: npt.NDArray[np.float32], seed: int) -> xgb.Booster:
    """TREES boosted trees of DEPTH on clicks drawn by a random linear truth of the features."""
    rng = np.random.default_rng(seed)
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    logit = standard @ rng.normal(0, 0.5, features.shape[1])
    clicked = rng.random(len(features)) < 1 / (1 + np.exp(-logit))
    names = [f"f{k}" for k in range(features.shape[1])]
    data = xgb.DMatrix(features, clicked, feature_names=names)
    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "tree_method": "hist"}
    return xgb.train({**parameters, "seed": seed}, data, num_boost_round=TREES)


def fit_network(features: npt.NDArray[np.float32], seed: int) -> bytes:
    """The int8 graph of an MMoE of 10 million weights, fitted on few rows: what it costs is what
    counts, not what it knows."""
    # JAX takes seconds to import, which a run without it need not wait for.
    from pipelines.train.neural_rankers import fit_mmoe

    rng = np.random.default_rng(seed)
    clicked, purchased = rng.random((2, NETWORK_ROWS)) < 0.3
    rows = features[:NETWORK_ROWS]
    labels = clicked.astype(np.uint8), purchased.astype(np.int8)
    return int8_graph(fit_mmoe(rows, *labels, seed=seed, size=Size.FULL).graph)


def graph_of(booster: xgb.Booster, features: int) -> bytes:
    """The graph of trees on vectors of so many features."""
    return tree_graph(xgboost_trees(booster), features)


def write_ranker(
    folder: Path, family: str, graph: bytes, features: npt.NDArray[np.float32], seed: int
) -> Artifact:
    """The artefact of a graph and of its stand-in."""
    now_ms = time.time_ns() // 1_000_000
    model_id = f"{family}-{now_ms}"
    fields = {
        "model_id": model_id,
        "role": "ranker",
        "family": family,
        "created_ms": now_ms,
        "data_version": "bench",
        "train_from_ms": now_ms - 1,
        "train_until_ms": now_ms,
        "parity_max_abs": 0.0,
        "spec_id": spec.SPEC_ID,
        "prerank": fit_prerank(served(graph), features, seed=seed),
        "feature_means": tuple(features.mean(axis=0, dtype=np.float64).tolist()),
    }
    return write_artifact(folder / "ranker" / model_id, fields, {RANKER_FILE: graph})
