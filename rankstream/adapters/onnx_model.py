"""ONNX graphs: the Model port, and the query tower of retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.contracts.manifest import Manifest, Utility
from rankstream.errors import InvalidArtifact, SpecMismatch
from rankstream.features import spec
from rankstream.ports import Scores

Floats = npt.NDArray[np.float32]

RANKER_FILE: Final = "model.onnx"
TOWER_FILE: Final = "query_tower.onnx"
_RANKER_IO: Final = ({"features": ("tensor(float)", 2)}, ("logit", "pctr"))
_TOWER_IO: Final = (
    {"recent": ("tensor(int64)", 2), "weight": ("tensor(float)", 2)},
    ("query",),
)
# What ONNX Runtime raises for bytes that are no graph, and for a graph that it cannot run.
REFUSALS: Final = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def _session(
    path: Path, io: tuple[dict[str, tuple[str, int]], tuple[str, ...]]
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # One request, one thread: requests are what runs in parallel, and a spinning pool takes the
    # core from them.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from None
    except REFUSALS as error:
        raise _invalid(path, f"is not a graph that can run: {str(error)[:200]}") from None
    inputs = {value.name: (value.type, len(value.shape)) for value in session.get_inputs()}
    if inputs != io[0]:
        raise _invalid(path, f"takes {inputs}, not {io[0]}")
    outputs = {value.name for value in session.get_outputs()}
    if not outputs.issuperset(io[1]):
        raise _invalid(path, f"gives {sorted(outputs)}, not {sorted(io[1])}")
    return session


def _invalid(path: Path, problem: str) -> InvalidArtifact:
    return InvalidArtifact(f"invalid_artifact: {path} {problem}. Not used. Export it again.")


class OnnxModel:
    """A ranker artefact, loaded and tried once."""

    def __init__(self, session: ort.InferenceSession, manifest: Manifest) -> None:
        self._session = session
        gives = {value.name for value in session.get_outputs()}
        self._heads = [name for name in Scores._fields if name in gives]
        self.manifest = manifest
        self.feature_means: Floats = np.array(manifest.feature_means, np.float32)

    @classmethod
    def load(cls, uri: str, sha256: str | None = None) -> OnnxModel:
        """The ranker in a folder, its digests checked.

        Raises:
            InvalidArtifact: half-written, altered, no ranker, or not one that gives finite scores.
            SpecMismatch: it was trained on features of another definition than this code makes.
        """
        manifest = read_manifest(uri, sha256)
        path = folder_of(uri) / RANKER_FILE
        if manifest.role != "ranker" or RANKER_FILE not in manifest.files:
            raise _invalid(path, f"is a {manifest.role} without a listed {RANKER_FILE}")
        if manifest.spec_id != spec.SPEC_ID:
            raise SpecMismatch(
                f"spec_mismatch: model {manifest.model_id} takes features {manifest.spec_id}, this"
                f" service makes {spec.SPEC_ID}. Not used. Train it again with this version."
            )
        if len(manifest.feature_means) != spec.WIDTH:
            raise _invalid(
                path, f"has {len(manifest.feature_means)} feature_means, not {spec.WIDTH}"
            )
        value = "" if manifest.utility is None else manifest.utility.value
        if value and value not in spec.NAMES:
            raise _invalid(path, f"takes an item's value from {value!r}, which is no feature")
        model = cls(_session(path, _RANKER_IO), manifest)
        if manifest.utility is not None and "pcvr" not in model._heads:
            raise _invalid(path, "has a utility, but its graph gives no pcvr")
        model._try(path)
        return model

    def _try(self, path: Path) -> None:
        defaults = np.array([[feature.default for feature in spec.FEATURES]], np.float32)
        probe = np.concatenate([defaults, self.feature_means[None]])
        try:
            logit, *probabilities = (head for head in self.score(probe) if head is not None)
        except REFUSALS as error:
            raise _invalid(
                path, f"cannot score {spec.WIDTH} features: {str(error)[:200]}"
            ) from None
        shapes = [head.shape for head in (logit, *probabilities)]
        if any(shape != (2,) for shape in shapes):
            raise _invalid(path, f"gives shapes {shapes} for 2 rows")
        fits = all((head >= 0).all() and (head <= 1).all() for head in probabilities)
        if not (np.isfinite(logit).all() and fits):
            raise _invalid(
                path, f"gives logit {logit} and probabilities {probabilities} for the defaults"
            )

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def data_version(self) -> str:
        return self.manifest.data_version

    @property
    def utility(self) -> Utility | None:
        return self.manifest.utility

    def score(self, features: Floats) -> Scores:
        return Scores(*self._session.run(self._heads, {"features": features}))


class QueryTower:
    """The user half of a two-tower model: last actions in, query vector out."""

    def __init__(self, session: ort.InferenceSession, dimensions: int) -> None:
        self._session = session
        self.dimensions = dimensions

    @classmethod
    def load(cls, folder: Path, *, dimensions: int) -> QueryTower:
        """The tower of an artefact folder.

        Raises: InvalidArtifact: no such graph, or its queries have other dimensions.
        """
        path = folder / TOWER_FILE
        tower = cls(_session(path, _TOWER_IO), dimensions)
        try:
            query = tower.embed(np.zeros(1, np.int64))
        except REFUSALS as error:
            raise _invalid(path, f"cannot embed a history: {str(error)[:200]}") from None
        if query.shape != (dimensions,) or not np.isfinite(query).all():
            raise _invalid(path, f"gives a query of shape {query.shape}, not ({dimensions},)")
        return tower

    def embed(self, recent: npt.NDArray[np.int64]) -> Floats:
        """The query of a user, shape (dimensions,).

        Args:
            recent: rows of the last items, newest first, shape (h,), h >= 1; -1 is ignored.
        """
        feeds: dict[str, Any] = {
            "recent": recent[None],
            "weight": np.ones((1, len(recent)), np.float32),
        }
        query: Floats = self._session.run(["query"], feeds)[0][0]
        return query
