"""ONNX graphs of the shapes that the services load, written node by node.

Ranker: features float32 [n, d] -> logit float32 [n], pctr float32 [n], and pcvr float32 [n] if it
was trained on purchases; preprocessing is inside.
Query tower: recent int64 [1, h], weight float32 [1, h] -> query float32 [1, dim].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
ML_OPSET: Final = 3
IR_VERSION: Final = 8
# A forest's share of 0 or 1 would be an infinite logit.
PROBABILITY_MIN: Final = 1e-5
# A network's layers alone are narrowed: what encodes takes differences of large numbers.
PIECES: Final = "encode_pieces"  # goes into them
HEAD: Final = "Squeeze"  # the kind of node that makes a logit of what comes out of them

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trees:
    """k nodes of a forest, each array of shape (k,). `left` -1 marks a leaf.

    A row goes left if row[feature] < value, or <= value if `ties_left`. Leaves are summed: to the
    logit, or to the probability if `probability`.
    """

    tree: Ints
    node: Ints
    left: Ints
    right: Ints
    feature: Ints
    value: npt.NDArray[np.float32]
    missing_left: Ints
    base: float  # added to the sum
    ties_left: bool = False
    probability: bool = False


def linear_graph(mean: Floats, scale: Floats, weight: Floats, bias: float) -> bytes:
    """logit = ((features - mean) * scale) @ weight + bias; arrays of shape (d,)."""
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["standard"]),
        helper.make_node("MatMul", ["standard", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["pctr"]),
    ]
    constants = {"mean": mean, "scale": scale, "weight": weight, "bias": np.array([bias])}
    return ranker_graph(nodes, constants, len(mean))


def tree_graph(trees: Trees, width: int) -> bytes:
    """logit = the sum of one leaf per tree, or of that probability."""
    leaf = trees.left < 0
    branch = "BRANCH_LEQ" if trees.ties_left else "BRANCH_LT"
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["sums"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[trees.base],
        nodes_treeids=trees.tree.tolist(),
        nodes_nodeids=trees.node.tolist(),
        nodes_modes=np.where(leaf, "LEAF", branch).tolist(),
        nodes_featureids=np.where(leaf, 0, trees.feature).tolist(),
        nodes_values=np.where(leaf, np.float32(0), trees.value).tolist(),
        nodes_truenodeids=np.where(leaf, 0, trees.left).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, trees.right).tolist(),
        nodes_missing_value_tracks_true=np.where(leaf, 0, trees.missing_left).tolist(),
        target_treeids=trees.tree[leaf].tolist(),
        target_nodeids=trees.node[leaf].tolist(),
        target_ids=[0] * int(leaf.sum()),
        target_weights=trees.value[leaf].tolist(),
    )
    nodes = [ensemble]
    constants = {"flat": np.array([-1])}
    if trees.probability:
        nodes += [
            helper.make_node("Reshape", ["sums", "flat"], ["probability"]),
            helper.make_node("Clip", ["probability", "least", "most"], ["pctr"]),
            helper.make_node("Sub", ["one", "pctr"], ["rest"]),
            helper.make_node("Div", ["pctr", "rest"], ["odds"]),
            helper.make_node("Log", ["odds"], ["logit"]),
        ]
        constants |= {
            "least": np.array(PROBABILITY_MIN),
            "most": np.array(1.0 - PROBABILITY_MIN),
            "one": np.array(1.0),
        }
    else:
        nodes += [
            helper.make_node("Reshape", ["sums", "flat"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["pctr"]),
        ]
    return ranker_graph(nodes, constants, width)


def shifted_graph(graph: bytes, shift: float) -> bytes:
    """A ranker's graph with `shift` added to its logit."""
    return _remapped(
        graph,
        lambda learned: [helper.make_node("Add", [learned, "shift"], ["logit"])],
        {"shift": np.array([shift])},
    )


def scaled_graph(graph: bytes, scale: float) -> bytes:
    """A ranker's graph with its pctr times `scale`, which is below 1."""

    def mapped(learned: str) -> list[Any]:
        return [
            helper.make_node("Neg", [learned], ["negated"]),
            helper.make_node("Softplus", ["negated"], ["log_odds"]),
            helper.make_node("Sub", ["log_scale", "log_odds"], ["log_clicked"]),
            helper.make_node("Exp", ["log_clicked"], ["clicked"]),
            helper.make_node("Sub", ["whole", "clicked"], ["unclicked"]),
            helper.make_node("Log", ["unclicked"], ["log_unclicked"]),
            helper.make_node("Sub", ["log_clicked", "log_unclicked"], ["logit"]),
        ]

    constants = {"log_scale": np.array([np.log(scale)]), "whole": np.array([1.0])}
    return _remapped(graph, mapped, constants)


def curved_graph(graph: bytes, x: Floats, slopes: Floats, base: float) -> bytes:
    """A ranker's graph with its logit mapped piecewise linearly.

    Args:
        x: where the pieces meet, ascending, shape (k,).
        slopes: of the pieces, shape (k + 1,); base: what x[0] becomes.
    """
    most = float(np.finfo(np.float32).max)
    constants = {
        "low": np.concatenate([[-most], x]),
        "high": np.concatenate([x, [most]]),
        # Each piece is counted from the end that is nearer to x[0].
        "anchor": np.concatenate([x[:1], x]),
        "slopes": slopes,
        "base": np.array([base]),
        "pieces": np.array([1]),
    }

    def mapped(learned: str) -> list[Any]:
        return [
            helper.make_node("Unsqueeze", [learned, "pieces"], ["column"]),
            helper.make_node("Max", ["column", "low"], ["from_low"]),
            helper.make_node("Min", ["from_low", "high"], ["within"]),
            helper.make_node("Sub", ["within", "anchor"], ["run"]),
            helper.make_node("Mul", ["run", "slopes"], ["rise"]),
            helper.make_node("ReduceSum", ["rise", "pieces"], ["risen"], keepdims=0),
            helper.make_node("Add", ["risen", "base"], ["logit"]),
        ]

    return _remapped(graph, mapped, constants)


def _remapped(
    graph: bytes, mapped: Callable[[str], list[Any]], constants: dict[str, npt.NDArray[Any]]
) -> bytes:
    """A ranker's graph with nodes from its logit to another behind it.

    Args:
        mapped: given the name of the learned logit, nodes that make "logit" of it. Their other
            names, and those of `constants`, become the graph's own: it may be mapped again.
    """
    model = onnx.load_model_from_string(graph)
    nodes = list(model.graph.node)
    learned = {name: f"{name}_{len(nodes)}" for name in ("logit", "pctr")}
    read = {name for node in nodes for name in node.input}
    nodes = [node for node in nodes if "pctr" not in node.output or "pctr" in read]
    for node in nodes:
        _rename(node, lambda name: learned.get(name, name))
    kept = {*learned.values(), "logit", ""}
    added = mapped(learned["logit"])
    for node in added:
        _rename(node, lambda name: name if name in kept else f"{name}_{len(nodes)}")
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *added, helper.make_node("Sigmoid", ["logit"], ["pctr"])])
    model.graph.initializer.extend(
        _initializers({f"{name}_{len(nodes)}": array for name, array in constants.items()})
    )
    onnx.checker.check_model(model)
    body: bytes = model.SerializeToString()
    return body


def _rename(node: Any, named: Callable[[str], str]) -> None:
    for names in (node.input, node.output):
        names[:] = [named(name) for name in names]


def tower_graph(vectors: Floats) -> bytes:
    """query = weighted mean of the vectors of `recent`; row -1 is nothing.

    Args:
        vectors: shape (m, dim), in order of the item table.
    """
    m, dim = vectors.shape
    nodes = [
        helper.make_node("GreaterOrEqual", ["recent", "zero"], ["known"]),
        helper.make_node("Cast", ["known"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["weight", "mask"], ["share"]),
        helper.make_node("Max", ["recent", "zero"], ["row"]),
        helper.make_node("Gather", ["table", "row"], ["seen"], axis=0),
        helper.make_node("Unsqueeze", ["share", "last"], ["column"]),
        helper.make_node("Mul", ["seen", "column"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["share", "middle"], ["mass"], keepdims=1),
        helper.make_node("Max", ["mass", "little"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["query"]),
    ]
    constants = {
        "zero": np.array(0),
        "last": np.array([2]),
        "middle": np.array([1]),
        "little": np.array(1e-6),
        "table": vectors,
    }
    assert m > 0
    return _tower(nodes, constants, dim)


def renumbered_graph(graph: bytes, order: Ints) -> bytes:
    """A query tower's graph for a table in another order: row r of it is row order[r] of before."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.input[:] = ["rows_before" if name == "recent" else name for name in node.input]
    # Row -1, which is nothing, takes the last entry and stays -1.
    before = numpy_helper.from_array(np.append(order, -1).astype(np.int64), "order")
    model.graph.initializer.append(before)
    model.graph.node.insert(0, helper.make_node("Gather", ["order", "recent"], ["rows_before"]))
    renumbered: bytes = model.SerializeToString()
    return renumbered


@dataclass(frozen=True, eq=False)
class AttentionTower:
    """A query tower of k attention heads over the last h items of a history.

    `items` (m, d); `attention` (d, k) and `place` (h, k), which score an item by what it is and
    where it stands; `hidden` (k d, w), `hidden_bias` (w,) and `out` (w, d).
    """

    items: Floats
    attention: Floats
    place: Floats
    hidden: Floats
    hidden_bias: Floats
    out: Floats


def attention_tower_graph(tower: AttentionTower) -> bytes:
    """query = the first head's mean + relu(means @ hidden + hidden_bias) @ out, and a 1 behind it.

    Row -1 is nothing; only the first h of `recent` are read.
    """
    node = helper.make_node
    nodes = [
        node("Slice", ["recent", "start", "most", "middle"], ["last_rows"]),
        node("Slice", ["weight", "start", "most", "middle"], ["last_weight"]),
        node("GreaterOrEqual", ["last_rows", "zero"], ["known"]),
        node("Cast", ["known"], ["mask"], to=TensorProto.FLOAT),
        node("Mul", ["last_weight", "mask"], ["share"]),
        node("Max", ["last_rows", "zero"], ["row"]),
        node("Gather", ["items", "row"], ["found"], axis=0),
        node("Unsqueeze", ["mask", "last"], ["mask_column"]),
        node("Mul", ["found", "mask_column"], ["seen"]),
        *_heads(),
        node("MatMul", ["by_head", "seen"], ["means"]),
        node("Reshape", ["means", "flat"], ["both"]),
        node("MatMul", ["both", "hidden"], ["product"]),
        node("Add", ["product", "hidden_bias"], ["sums"]),
        node("Relu", ["sums"], ["active"]),
        node("MatMul", ["active", "out"], ["change"]),
        node("Slice", ["both", "start", "dim", "middle"], ["first"]),
        node("Add", ["first", "change"], ["vector"]),
        node("Concat", ["vector", "one"], ["query"], axis=1),
    ]
    dim, (most, heads) = tower.items.shape[1], tower.place.shape
    constants = {
        **vars(tower),
        "start": np.array([0]),
        "most": np.array([most]),
        "middle": np.array([1]),
        "last": np.array([2]),
        "zero": np.array(0),
        "little": np.array(1e-12),
        "flat": np.array([1, heads * dim]),
        "dim": np.array([dim]),
        "one": np.ones((1, 1)),
    }
    return _tower(nodes, constants, dim + 1)


def _heads() -> list[Any]:
    """seen [1, h, d], share [1, h] -> by_head [1, k, h]: what each head makes of each item."""
    node = helper.make_node
    return [
        node("MatMul", ["seen", "attention"], ["likeness"]),
        node("Shape", ["last_rows"], ["length"], start=1, end=2),
        node("Slice", ["place", "start", "length", "start"], ["here"]),
        node("Add", ["likeness", "here"], ["score"]),
        node("ReduceMax", ["score"], ["largest"], axes=[1], keepdims=1),
        node("Sub", ["score", "largest"], ["below"]),
        node("Exp", ["below"], ["chance"]),
        node("Unsqueeze", ["share", "last"], ["share_column"]),
        node("Mul", ["chance", "share_column"], ["odds"]),
        node("ReduceSum", ["odds", "middle"], ["sum"], keepdims=1),
        node("Max", ["sum", "little"], ["divisor"]),
        node("Div", ["odds", "divisor"], ["heads"]),
        node("Transpose", ["heads"], ["by_head"], perm=[0, 2, 1]),
    ]


def _tower(nodes: list[Any], constants: dict[str, npt.NDArray[Any]], width: int) -> bytes:
    value = helper.make_tensor_value_info
    return _model(
        nodes,
        [
            value("recent", TensorProto.INT64, [1, "h"]),
            value("weight", TensorProto.FLOAT, [1, "h"]),
        ],
        [value("query", TensorProto.FLOAT, [1, width])],
        constants,
    )


def ranker_graph(
    nodes: list[Any],
    constants: dict[str, npt.NDArray[Any]],
    width: int,
    *,
    outputs: Sequence[str] = ("logit", "pctr"),
) -> bytes:
    """The graph of a ranker of `width` features from its nodes, in order."""
    value = helper.make_tensor_value_info
    return _model(
        nodes,
        [value("features", TensorProto.FLOAT, ["n", width])],
        [value(name, TensorProto.FLOAT, ["n"]) for name in outputs],
        constants,
    )


def _model(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, npt.NDArray[Any]]
) -> bytes:
    graph = helper.make_graph(
        nodes, "rankstream", inputs, outputs, initializer=_initializers(constants)
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    body: bytes = model.SerializeToString()
    return body


def _initializers(constants: dict[str, npt.NDArray[Any]]) -> list[Any]:
    """Floats become float32 and integers int64."""
    return [
        numpy_helper.from_array(
            array.astype(np.float32 if array.dtype.kind == "f" else np.int64), name
        )
        for name, array in constants.items()
    ]
