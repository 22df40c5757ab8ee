"""A forest walked by blocks and pruned, against one walked node by node and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.train.graphs import Trees, linear_graph, tree_graph
from pipelines.train.rankers import Ranker
from pipelines.train.trees import fit_lightgbm, fit_random_forest, fit_xgboost
from rankstream.adapters import forest
from rankstream.adapters.artifacts import write_artifact
from rankstream.adapters.forest import PRUNED_ROWS_MIN, split
from rankstream.adapters.onnx_model import OnnxModel
from rankstream.errors import InvalidArtifact
from rankstream.features import spec
from tests.serving_artifacts import ranker_fields

Floats = npt.NDArray[np.float32]
WIDTH = 6


def random_trees(rng: np.random.Generator, trees: int, *, ties_left: bool) -> Trees:
    """Trees of random shape; thresholds are few, so that rows meet them."""
    columns: dict[str, list[float]] = {
        name: [] for name in ("tree", "node", "left", "right", "feature", "value")
    }
    for number in range(trees):
        pending, nodes = [0], 1
        while pending:
            at = pending.pop()
            splits = nodes < 40 and rng.random() < 0.7
            children = (nodes, nodes + 1) if splits else (-1, -1)
            pending += children if splits else ()
            nodes += 2 * splits
            value = float(rng.integers(-2, 3)) if splits else rng.normal()
            row: tuple[float, ...] = (number, at, *children, int(rng.integers(WIDTH)), value)
            for name, cell in zip(columns, row, strict=True):
                columns[name].append(cell)
    tree, node, left, right, feature = (
        np.array(columns[name], np.int64) for name in columns if name != "value"
    )
    return Trees(
        tree=tree,
        node=node,
        left=left,
        right=right,
        feature=feature,
        value=np.array(columns["value"], np.float32),
        missing_left=np.zeros(len(tree), np.int64),
        base=0.25,
        ties_left=ties_left,
    )


def node_by_node(trees: Trees, row: Floats) -> float:
    """What one row sums to."""
    place = {(t, k): at for at, (t, k) in enumerate(zip(trees.tree, trees.node, strict=True))}
    total = np.float32(trees.base)
    for tree in np.unique(trees.tree):
        at = place[tree, 0]
        while trees.left[at] >= 0:
            x, value = row[trees.feature[at]], trees.value[at]
            goes_left = x <= value if trees.ties_left else x < value
            at = place[tree, (trees.left if goes_left else trees.right)[at]]
        total += trees.value[at]
    return float(total)


def rows_like_a_request(rng: np.random.Generator, n: int) -> Floats:
    """Whole numbers, which thresholds are too; some columns are the same in every row."""
    rows = rng.integers(-3, 4, (n, WIDTH)).astype(np.float32)
    rows[:, rng.random(WIDTH) < 0.5] = rng.integers(-3, 4)
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans(), st.integers(0, 200))
def test_sums_are_those_of_a_walk_node_by_node(
    seed: int, trees: int, ties_left: bool, n: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = random_trees(rng, trees, ties_left=ties_left)
    parts = split(tree_graph(drawn, WIDTH))
    assert parts is not None
    rows = rows_like_a_request(rng, n)

    sums = parts[0].sums(rows)

    assert sums.shape == (n, 1)
    assert sums[:, 0].tolist() == [node_by_node(drawn, row) for row in rows]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_row_sums_to_the_same_bits_whatever_rows_come_with_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = split(tree_graph(random_trees(rng, 20, ties_left=False), WIDTH))
    assert parts is not None
    rows = rows_like_a_request(rng, 3 * PRUNED_ROWS_MIN)

    together, few = parts[0].sums(rows), parts[0].sums(rows[5:25])

    assert together[5:25].tobytes() == few.tobytes()


def fitted(family: str) -> tuple[Ranker, Floats]:
    rng = np.random.default_rng(7)
    features = rng.normal(size=(3_000, spec.WIDTH)).astype(np.float32)
    clicked = (features[:, 0] + features[:, 1] * features[:, 2] > rng.normal(size=3_000)) * 1
    fit = {"xgboost": fit_xgboost, "lightgbm": fit_lightgbm, "forest": fit_random_forest}[family]
    return fit(features, clicked.astype(np.uint8), seed=1), features


@pytest.mark.parametrize("family", ["xgboost", "lightgbm", "forest"])
def test_a_library_s_trees_score_as_in_onnx_runtime(family: str, tmp_path: Path) -> None:
    ranker, features = fitted(family)
    fields = ranker_fields("m", feature_means=tuple(features.mean(axis=0).tolist()))
    artifact = write_artifact(tmp_path / "m", fields, {"model.onnx": ranker.graph})
    session = ort.InferenceSession(ranker.graph)
    assert split(ranker.graph) is not None

    scores = OnnxModel.load(artifact.uri).score(features)

    logit, pctr = session.run(["logit", "pctr"], {"features": features})
    assert scores.logit == pytest.approx(logit, abs=1e-5)
    assert scores.pctr == pytest.approx(pctr, abs=1e-6)


def test_a_graph_without_trees_is_left_as_it_is() -> None:
    ones = np.ones(WIDTH)

    assert split(linear_graph(ones, ones, ones, 0.0)) is None


def test_a_walk_that_differs_from_the_graph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker, features = fitted("xgboost")
    fields = ranker_fields("m", feature_means=tuple(features.mean(axis=0).tolist()))
    artifact = write_artifact(tmp_path / "m", fields, {"model.onnx": ranker.graph})
    walk = forest.Forest.sums
    monkeypatch.setattr(forest.Forest, "sums", lambda self, rows: walk(self, rows) + 0.01)

    with pytest.raises(InvalidArtifact, match=r"trees whose walk is off by .* \(limit 1e-05\)"):
        OnnxModel.load(artifact.uri)
