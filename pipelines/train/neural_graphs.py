"""Networks as ONNX graphs, layer by layer; features are encoded inside.

Wide & Deep gives logit and pctr, MMoE pcvr (the probability of a purchase) as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from pipelines.train.encoding import Encoding
from pipelines.train.graphs import HEAD, PIECES, ranker_graph
from pipelines.train.networks import Layer, Parameters
from pipelines.train.shapes import CLICK, PURCHASE


class _Builder:
    """Nodes in order and the constants that they read."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {"column": np.array([1])}

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def encode(self, encoding: Encoding) -> str:
        """The pieces of each row, shape (n, k)."""
        pieces = {"feature": encoding.feature, "low": encoding.low, "scale": encoding.scale}
        for name, values in (*pieces.items(), ("none", np.array(0.0)), ("whole", np.array(1.0))):
            self.constant(name, values)
        self.add("Gather", ["features", "feature"], "encode_columns", axis=1)
        self.add("Sub", ["encode_columns", "low"], "encode_above")
        self.add("Mul", ["encode_above", "scale"], "encode_share")
        return self.add("Clip", ["encode_share", "none", "whole"], PIECES)

    def dense(self, layer: Layer, values: str, name: str) -> str:
        weight = self.constant(f"{name}_weight", layer["weight"])
        bias = self.constant(f"{name}_bias", layer["bias"])
        product = self.add("MatMul", [values, weight], f"{name}_product")
        return self.add("Add", [product, bias], f"{name}_sum")

    def stack(self, layers: list[Layer], values: str, name: str) -> str:
        for place, layer in enumerate(layers[:-1]):
            values = self.dense(layer, values, f"{name}{place}")
            values = self.add("Relu", [values], f"{name}{place}_relu")
        return self.dense(layers[-1], values, f"{name}{len(layers) - 1}")

    def probability(self, logits: str, logit: str, probability: str) -> None:
        """`logits`, shape (n, 1), as outputs of shape (n,)."""
        self.add(HEAD, [logits, "column"], logit)
        self.add("Sigmoid", [logit], probability)


def wide_deep_graph(parameters: Parameters, encoding: Encoding, width: int) -> bytes:
    """networks.wide_deep of features, shape (n, width)."""
    graph = _Builder()
    pieces = graph.encode(encoding)
    wide = graph.dense(parameters["wide"], pieces, "wide")
    deep = graph.stack(parameters["deep"], pieces, "deep")
    graph.probability(graph.add("Add", [wide, deep], "click_logits"), "logit", "pctr")
    return ranker_graph(graph.nodes, graph.constants, width)


def mmoe_graph(parameters: Parameters, encoding: Encoding, width: int) -> bytes:
    """networks.mmoe of features, shape (n, width)."""
    graph = _Builder()
    pieces = graph.encode(encoding)
    told = [
        graph.add("Relu", [graph.stack(layers, pieces, f"expert{k}_")], f"expert{k}")
        for k, layers in enumerate(parameters["experts"])
    ]
    outputs = {CLICK: ("logit", "pctr"), PURCHASE: ("purchase_logit", "pcvr")}
    for head, (logit, probability) in outputs.items():
        gate = graph.dense(parameters["gates"][head], pieces, f"{head}_gate")
        shares = graph.add("Softmax", [gate], f"{head}_shares", axis=1)
        names = [f"{head}_share{k}" for k in range(len(told))]
        graph.nodes.append(helper.make_node("Split", [shares], names, name=names[0], axis=1))
        parts = [
            graph.add("Mul", [share, one], f"{head}_part{k}")
            for k, (share, one) in enumerate(zip(names, told, strict=True))
        ]
        mixed = graph.add("Sum", parts, f"{head}_mixed")
        tower = graph.stack(parameters["towers"][head], mixed, f"{head}_tower")
        graph.probability(tower, logit, probability)
    return ranker_graph(graph.nodes, graph.constants, width, outputs=("logit", "pctr", "pcvr"))
