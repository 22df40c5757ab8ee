"""A ranker's graph with smaller numbers: what it is off by, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from pipelines.train.graphs import HEAD, PIECES
from rankstream.errors import InvalidArtifact

# Of a probability, on rows that it was trained on. A slate's neighbours are further apart.
ERROR_MAX: Final = 5e-3
ERROR_ROWS: Final = 10_000
REQUEST_ROWS: Final = 500
REQUESTS: Final = 50
NARROW: Final = "narrow_"

Floats = npt.NDArray[np.float32]


class Precision(StrEnum):
    """How a network's weights are stored and multiplied."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


@dataclass(frozen=True, eq=False)
class Variant:
    """`max_abs` is the largest difference of a probability from float32; `cpu_ms` the median CPU
    time of REQUEST_ROWS rows on one thread of this machine."""

    graph: bytes
    max_abs: float
    cpu_ms: float


def float16_graph(graph: bytes) -> bytes:
    """Weights and sums of layers in float16; encoding, heads, inputs and outputs in float32.

    What follows a head's logit, a calibration for instance, is as exact as it was. Not by a
    converter: those round the input of the graph, and what goes from node to node.
    """
    model = onnx.load_model_from_string(graph)
    narrow, read, found = {PIECES}, set[str](), []
    for node in model.graph.node:
        found.append(node)
        name = node.output[0]
        if name == PIECES:
            found.append(helper.make_node("Cast", [name], [NARROW + name], to=TensorProto.FLOAT16))
        elif narrow.intersection(node.input):
            read.update(node.input)
            node.input[:] = [NARROW + one if one == PIECES else one for one in node.input]
            if node.op_type == HEAD:
                node.output[0] = NARROW + name
                found.append(
                    helper.make_node("Cast", [NARROW + name], [name], to=TensorProto.FLOAT)
                )
            else:
                narrow.update(node.output)
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT and constant.name in read:
            values = numpy_helper.to_array(constant).astype(np.float16)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    del model.graph.node[:]
    model.graph.node.extend(found)
    onnx.checker.check_model(model)
    body: bytes = model.SerializeToString()
    return body


def int8_graph(graph: bytes) -> bytes:
    """Weights of layers in int8, their inputs too, at a scale that is found for each request.

    So a row's score depends a little on what it is scored with: no more than by twice `max_abs`.
    """
    with tempfile.TemporaryDirectory() as folder:
        shaped, narrow = Path(folder) / "shaped.onnx", Path(folder) / "narrow.onnx"
        quant_pre_process(
            onnx.load_model_from_string(graph),
            shaped,
            skip_optimization=True,
            skip_symbolic_shape=True,
        )
        quantize_dynamic(
            shaped,
            narrow,
            op_types_to_quantize=["MatMul"],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
        return narrow.read_bytes()


NARROWED: Final[Mapping[Precision, Callable[[bytes], bytes]]] = {
    Precision.FLOAT16: float16_graph,
    Precision.INT8: int8_graph,
}


def variants(graph: bytes, features: Floats, *, seed: int) -> dict[Precision, Variant]:
    """The graph in every precision, measured on up to ERROR_ROWS of `features`, shape (n, d)."""
    rng = np.random.default_rng(seed)
    rows = features[rng.permutation(len(features))[:ERROR_ROWS]]
    exact = _probabilities(graph, rows)
    graphs = {Precision.FLOAT32: graph}
    graphs |= {precision: narrowed(graph) for precision, narrowed in NARROWED.items()}
    return {
        precision: Variant(
            one,
            float(np.abs(_probabilities(one, rows) - exact).max()),
            _cpu_ms(one, rows[rng.integers(0, len(rows), REQUEST_ROWS)]),
        )
        for precision, one in graphs.items()
    }


def chosen(found: Mapping[Precision, Variant], precision: Precision) -> Variant:
    """The variant that is to be served.

    Raises: InvalidArtifact: it is off by more than ERROR_MAX.
    """
    variant = found[precision]
    # Not `error > limit`: nan fails too.
    if not variant.max_abs <= ERROR_MAX:
        raise InvalidArtifact(
            f"invalid_artifact: the {precision} graph is off by {variant.max_abs:g} (limit"
            f" {ERROR_MAX:g}). Nothing was registered. Train with precision float32."
        )
    return variant


def session_of(graph: bytes) -> ort.InferenceSession:
    """The graph on one thread, as it is served."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _probabilities(graph: bytes, rows: Floats) -> npt.NDArray[np.float64]:
    """Of all heads, shape (heads, n), by requests: int8 finds its scale for each."""
    session = session_of(graph)
    names = [one.name for one in session.get_outputs() if one.name in ("pctr", "pcvr")]
    parts = [
        np.stack(session.run(names, {"features": rows[start : start + REQUEST_ROWS]}))
        for start in range(0, len(rows), REQUEST_ROWS)
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _cpu_ms(graph: bytes, request: Floats) -> float:
    session = session_of(graph)
    spent = []
    for _ in range(REQUESTS + 1):
        started_s = time.thread_time()
        session.run(None, {"features": request})
        spent.append((time.thread_time() - started_s) * 1_000)
    return float(np.median(spent[1:]))
