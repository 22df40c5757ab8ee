"""ONNX graphs in ONNX Runtime, as the services run them: one thread each, of a known shape."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from rankstream.errors import InvalidArtifact

# The type and the number of dimensions of each input, and the outputs that there are at least.
Shape: TypeAlias = tuple[dict[str, tuple[str, int]], tuple[str, ...]]

# What ONNX Runtime raises for bytes that are no graph, and for a graph that it cannot run.
REFUSALS: Final = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def read(path: Path) -> bytes:
    """A file of an artefact. Raises: InvalidArtifact: it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise invalid(path, f"cannot be read: {error.strerror}") from None


def session(path: Path, graph: bytes | None, io: Shape) -> ort.InferenceSession:
    """A session of the graph in the file at `path`, or of one that is made of it.

    A session keeps the bytes that it was made of: a large graph is better read from its file.

    Raises: InvalidArtifact: it cannot run, or is of another shape.
    """
    options = ort.SessionOptions()
    # One request, one thread: requests are what runs in parallel, and a spinning pool takes the
    # core from them.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        origin = str(path) if graph is None else graph
        found = ort.InferenceSession(origin, options, providers=["CPUExecutionProvider"])
    except REFUSALS as error:
        raise invalid(path, f"is not a graph that can run: {str(error)[:200]}") from None
    inputs = {value.name: (value.type, len(value.shape)) for value in found.get_inputs()}
    if inputs != io[0]:
        raise invalid(path, f"takes {inputs}, not {io[0]}")
    outputs = {value.name for value in found.get_outputs()}
    if not outputs.issuperset(io[1]):
        raise invalid(path, f"gives {sorted(outputs)}, not {sorted(io[1])}")
    return found


def invalid(path: Path, problem: str) -> InvalidArtifact:
    """What to raise for a file that is not what its artefact needs."""
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Export it again.")
