"""The Model port on ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rankstream.adapters import forest
from rankstream.adapters.artifacts import folder_of, read_manifest
from rankstream.adapters.onnx_session import REFUSALS, Shape, invalid, read, session
from rankstream.contracts.manifest import Manifest, Utility
from rankstream.errors import SpecMismatch
from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL_NAMES
from rankstream.ports import Scores

Floats = npt.NDArray[np.float32]

RANKER_FILE: Final = "model.onnx"
_HEADS: Final = ("logit", "pctr")
_RANKER_IO: Final[Shape] = ({"features": ("tensor(float)", 2)}, _HEADS)
_SUMS_IO: Final[Shape] = ({forest.SUMS: ("tensor(float)", 2)}, _HEADS)
# Of a probability, between the forest walked here and the whole graph in ONNX Runtime.
FOREST_MAX_ABS: Final = 1e-5
# Enough for pruned walks of a forest, too.
PROBE_ROWS: Final = 254


class OnnxModel:
    """A ranker artefact, loaded and tried once.

    The trees of a graph are walked here (`forest`), the rest of it is ONNX Runtime's.
    """

    def __init__(
        self,
        graph: ort.InferenceSession,
        manifest: Manifest,
        trees: forest.Forest | None = None,
    ) -> None:
        """With `trees`, the graph takes their sums in place of the features."""
        self._graph = graph
        self._trees = trees
        gives = {value.name for value in graph.get_outputs()}
        self._heads = [name for name in Scores._fields if name in gives]
        self.manifest = manifest
        self.feature_means: Floats = np.array(manifest.feature_means, np.float32)
        weights = [manifest.prerank.get(name, 0.0) for name in PARTIAL_NAMES]
        self._prerank = np.array(weights) if manifest.prerank else None

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
            raise invalid(path, f"is a {manifest.role} without a listed {RANKER_FILE}")
        if manifest.spec_id != spec.SPEC_ID:
            raise SpecMismatch(
                f"spec_mismatch: model {manifest.model_id} takes features {manifest.spec_id}, this"
                f" service makes {spec.SPEC_ID}. Not used. Train it again with this version."
            )
        if len(manifest.feature_means) != spec.WIDTH:
            raise invalid(
                path, f"has {len(manifest.feature_means)} feature_means, not {spec.WIDTH}"
            )
        value = "" if manifest.utility is None else manifest.utility.value
        if value and value not in spec.NAMES:
            raise invalid(path, f"takes an item's value from {value!r}, which is no feature")
        if unknown := sorted(set(manifest.prerank) - set(PARTIAL_NAMES)):
            raise invalid(path, f"cuts candidates by {unknown}, which are known only afterwards")
        graph = read(path)
        model = cls(session(path, graph, _RANKER_IO), manifest)
        if manifest.utility is not None and "pcvr" not in model._heads:
            raise invalid(path, "has a utility, but its graph gives no pcvr")
        probe = model._probe()
        model._try(path, probe)
        parts = forest.split(graph)
        if parts is None:
            return model
        trees, rest = parts
        walked = cls(session(path, rest, _SUMS_IO), manifest, trees)
        gap = float(np.abs(walked.score(probe).pctr - model.score(probe).pctr).max())
        # Not `gap > limit`: nan fails too.
        if not gap <= FOREST_MAX_ABS:
            raise invalid(path, f"has trees whose walk is off by {gap:g} (limit {FOREST_MAX_ABS})")
        return walked

    def _probe(self) -> Floats:
        """Rows to try a model on, the defaults and the means of its features among them."""
        defaults = np.array([feature.default for feature in spec.FEATURES], np.float32)
        share = np.random.default_rng(0).random((PROBE_ROWS, spec.WIDTH), np.float32)
        ends = np.stack([defaults, self.feature_means])
        return np.concatenate([ends, ends[0] + share * 2 * (ends[1] - ends[0])])

    def _try(self, path: Path, probe: Floats) -> None:
        try:
            logit, *probabilities = (head for head in self.score(probe) if head is not None)
        except REFUSALS as error:
            raise invalid(path, f"cannot score {spec.WIDTH} features: {str(error)[:200]}") from None
        shapes = [head.shape for head in (logit, *probabilities)]
        if any(shape != (len(probe),) for shape in shapes):
            raise invalid(path, f"gives shapes {shapes} for {len(probe)} rows")
        fits = all((head >= 0).all() and (head <= 1).all() for head in probabilities)
        if not (np.isfinite(logit).all() and fits):
            raise invalid(
                path,
                f"gives logits {logit[:2]} and probabilities {[p[:2] for p in probabilities]} for"
                " the defaults and the means of its features",
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

    @property
    def prerank(self) -> npt.NDArray[np.float64] | None:
        return self._prerank

    def score(self, features: Floats) -> Scores:
        if self._trees is None:
            return Scores(*self._graph.run(self._heads, {"features": features}))
        sums = self._trees.sums(features)
        return Scores(*self._graph.run(self._heads, {forest.SUMS: sums}))
