"""Small artefacts of the real formats: what the tests of serving load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.adapters.cold_vectors import ColdVectors, write_cold_vectors
from rankstream.adapters.faiss_index import FaissIndex
from rankstream.adapters.neighbour_lists import NeighbourLists, write_neighbour_lists
from rankstream.contracts.ids import id64
from rankstream.features import spec
from rankstream.pb.events_pb2 import ModelPointer

Floats = npt.NDArray[np.float32]
NOW_MS = 1_700_000_000_000


def _fields(model_id: str, role: str, **more: Any) -> dict[str, Any]:
    return {
        "model_id": model_id,
        "role": role,
        "family": "logistic_regression" if role == "ranker" else "pure_svd",
        "created_ms": NOW_MS,
        "data_version": "test",
        "train_from_ms": NOW_MS - 1,
        "train_until_ms": NOW_MS,
        "metrics": {},
        "parity_max_abs": 0.0,
        "parameters": {},
        "feature_histograms": {},
        **more,
    }


def _bytes(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=constants)
    opset = [helper.make_opsetid("", 17)]
    body: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(body))
    return body


def linear_ranker(weights: Floats, bias: float = 0.0) -> bytes:
    """ONNX: logit = features @ weights + bias, pctr = sigmoid(logit)."""
    value = helper.make_tensor_value_info
    return _bytes(
        [
            helper.make_node("MatMul", ["features", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["pctr"]),
        ],
        [value("features", TensorProto.FLOAT, ["n", len(weights)])],
        [value("logit", TensorProto.FLOAT, ["n"]), value("pctr", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(np.array([bias], np.float32), "b"),
        ],
    )


def mean_tower(vectors: Floats) -> bytes:
    """ONNX: query = weighted sum of the vectors of `recent`, -1 ignored."""
    value = helper.make_tensor_value_info
    table = np.concatenate([np.zeros((1, vectors.shape[1]), np.float32), vectors])
    return _bytes(
        [
            helper.make_node("Add", ["recent", "one"], ["place"]),
            helper.make_node("Gather", ["table", "place"], ["seen"], axis=0),
            helper.make_node("Unsqueeze", ["weight", "last"], ["column"]),
            helper.make_node("Mul", ["seen", "column"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "middle"], ["query"], keepdims=0),
        ],
        [
            value("recent", TensorProto.INT64, [1, "h"]),
            value("weight", TensorProto.FLOAT, [1, "h"]),
        ],
        [value("query", TensorProto.FLOAT, [1, vectors.shape[1]])],
        [
            numpy_helper.from_array(np.array([1], np.int64), "one"),
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(np.array([2], np.int64), "last"),
            numpy_helper.from_array(np.array([1], np.int64), "middle"),
        ],
    )


def ranker_fields(
    model_id: str, *, feature_means: tuple[float, ...], spec_id: str = spec.SPEC_ID
) -> dict[str, Any]:
    """Fields of a ranker's manifest."""
    return _fields(model_id, "ranker", spec_id=spec_id, feature_means=feature_means)


def write_ranker(
    folder: Path, model_id: str, weights: Floats, *, spec_id: str = spec.SPEC_ID
) -> Artifact:
    """A linear ranker, its feature means all 0.5."""
    means = tuple([0.5] * spec.WIDTH)
    fields = ranker_fields(model_id, feature_means=means, spec_id=spec_id)
    return write_artifact(folder / model_id, fields, {"model.onnx": linear_ranker(weights)})


def write_index(
    folder: Path,
    index_id: str,
    item_ids: list[str],
    vectors: Floats,
    popularity: Floats,
    lists: NeighbourLists | None = None,
    cold: ColdVectors | None = None,
) -> Artifact:
    """An exact index with a tower that averages, and lists and vectors of new items if any."""
    folder.mkdir(parents=True, exist_ok=True)
    index, items = folder / "index.faiss.tmp", folder / "items.npz.tmp.npz"
    FaissIndex.build(vectors).save(index)
    np.savez(
        items,
        item_id=np.array(item_ids),
        id64=np.array([id64(name) for name in item_ids], np.uint64),
        vectors=vectors.astype(np.float32),
        popularity=popularity.astype(np.float32),
    )
    fields = _fields(index_id, "retrieval", items=len(item_ids), dimensions=int(vectors.shape[1]))
    files: dict[str, bytes | Path] = {
        "query_tower.onnx": mean_tower(vectors),
        "index.faiss": index,
        "items.npz": items,
    }
    if lists is not None:
        files["neighbours.npz"] = folder / "neighbours.npz.tmp.npz"
        write_neighbour_lists(folder / "neighbours.npz.tmp.npz", lists)
    if cold is not None:
        files["cold.npz"] = folder / "cold.npz.tmp.npz"
        write_cold_vectors(folder / "cold.npz.tmp.npz", cold)
    return write_artifact(folder / index_id, fields, files)


def pointer(role: str, alias: str, artifact: Artifact) -> bytes:
    """The record of topic `models` that makes an alias serve an artefact."""
    return ModelPointer(
        role=role,
        alias=alias,
        model_id=artifact.manifest.model_id,
        uri=artifact.uri,
        sha256=artifact.sha256,
        updated_ms=NOW_MS,
    ).SerializeToString()
