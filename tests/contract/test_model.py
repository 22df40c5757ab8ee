"""What every Model promises, on the fake and on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankstream.adapters.artifacts import write_artifact
from rankstream.adapters.onnx_model import OnnxModel
from rankstream.adapters.query_tower import QueryTower
from rankstream.contracts.manifest import Utility
from rankstream.errors import InvalidArtifact, SpecMismatch
from rankstream.features import spec
from rankstream.features.snapshot import PARTIAL_NAMES
from rankstream.ports import Model
from rankstream.ranking.scoring import logistic
from rankstream.testing import FakeModel
from tests.serving_artifacts import linear_ranker, mean_tower, write_index, write_ranker

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=spec.WIDTH).astype(np.float32)
FEATURES = RNG.normal(size=(500, spec.WIDTH)).astype(np.float32)


def fake(_folder: Path) -> Model:
    return FakeModel(WEIGHTS, model_id="m", means=np.full(spec.WIDTH, 0.5, np.float32))


def onnx_model(folder: Path) -> Model:
    artifact = write_ranker(folder, "m", WEIGHTS)
    return OnnxModel.load(artifact.uri, artifact.sha256)


@pytest.fixture(params=[fake, onnx_model], ids=["fake", "onnx"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    build: Callable[[Path], Model] = request.param
    return build(tmp_path)


def test_scores_every_row(model: Model) -> None:
    logit, pctr, _ = model.score(FEATURES)

    assert logit.dtype == pctr.dtype == np.float32
    assert logit == pytest.approx(FEATURES @ WEIGHTS, abs=1e-4)
    assert pctr == pytest.approx(logistic(logit), abs=1e-6)


def test_a_row_scores_the_same_alone_and_in_company(model: Model) -> None:
    logit = model.score(FEATURES).logit

    alone = np.concatenate([model.score(FEATURES[i : i + 1])[0] for i in range(20)])

    assert alone == pytest.approx(logit[:20], abs=1e-4)


def test_the_same_rows_score_the_same_bits(model: Model) -> None:
    assert model.score(FEATURES)[0].tobytes() == model.score(FEATURES.copy())[0].tobytes()


def test_knows_its_name_and_its_baseline(model: Model) -> None:
    assert model.model_id == "m"
    assert model.feature_means.tolist() == [0.5] * spec.WIDTH


def test_features_of_another_definition_are_refused(tmp_path: Path) -> None:
    artifact = write_ranker(tmp_path, "m", WEIGHTS, spec_id="another")

    with pytest.raises(SpecMismatch, match=f"takes features another.*makes {spec.SPEC_ID}"):
        OnnxModel.load(artifact.uri, artifact.sha256)


def test_an_altered_model_is_refused(tmp_path: Path) -> None:
    artifact = write_ranker(tmp_path, "m", WEIGHTS)
    path = Path(artifact.uri) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(InvalidArtifact, match=r"model\.onnx has sha256"):
        OnnxModel.load(artifact.uri, artifact.sha256)


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (b"not a graph", "is not a graph that can run"),
        (linear_ranker(WEIGHTS[:3]), "cannot score"),
        (linear_ranker(np.full(spec.WIDTH, np.nan, np.float32)), "for the defaults"),
        (mean_tower(np.ones((2, 2), np.float32)), "takes .* not"),
    ],
    ids=["bytes", "width", "nan", "tower"],
)
def test_a_graph_that_is_no_ranker_is_refused(tmp_path: Path, graph: bytes, problem: str) -> None:
    good = write_ranker(tmp_path, "good", WEIGHTS).manifest.model_dump(exclude={"files"})
    artifact = write_artifact(tmp_path / "m", good, {"model.onnx": graph})

    with pytest.raises(InvalidArtifact, match=problem):
        OnnxModel.load(artifact.uri, artifact.sha256)


@pytest.mark.parametrize(
    ("utility", "problem"),
    [
        (Utility(click=1.0, purchase=1.0), "has a utility, but its graph gives no pcvr"),
        (Utility(click=1.0, purchase=1.0, value="luck"), "from 'luck', which is no feature"),
    ],
)
def test_a_utility_of_what_is_not_there_is_refused(
    tmp_path: Path, utility: Utility, problem: str
) -> None:
    good = write_ranker(tmp_path, "good", WEIGHTS).manifest.model_dump(exclude={"files"})
    files = {"model.onnx": linear_ranker(WEIGHTS)}
    artifact = write_artifact(tmp_path / "m", {**good, "utility": utility}, files)

    with pytest.raises(InvalidArtifact, match=problem):
        OnnxModel.load(artifact.uri, artifact.sha256)


def test_a_stand_in_is_read_by_name_and_one_of_other_features_refused(tmp_path: Path) -> None:
    good = write_ranker(tmp_path, "good", WEIGHTS).manifest.model_dump(exclude={"files"})
    files = {"model.onnx": linear_ranker(WEIGHTS)}
    first, last = PARTIAL_NAMES[0], PARTIAL_NAMES[-1]
    kept = write_artifact(tmp_path / "m", {**good, "prerank": {last: 2.0, first: 1.0}}, files)
    other = write_artifact(tmp_path / "o", {**good, "prerank": {"item_ctr_5m": 1.0}}, files)

    prerank = OnnxModel.load(kept.uri, kept.sha256).prerank

    assert prerank is not None
    assert (len(prerank), prerank[0], prerank[-1], np.abs(prerank).sum()) == (26, 1.0, 2.0, 3.0)
    with pytest.raises(InvalidArtifact, match=r"cuts candidates by \['item_ctr_5m'\]"):
        OnnxModel.load(other.uri, other.sha256)


def test_an_index_is_no_ranker(tmp_path: Path) -> None:
    vectors = np.ones((2, 2), np.float32)
    artifact = write_index(tmp_path, "index", ["a", "b"], vectors, np.ones(2, np.float32))

    with pytest.raises(InvalidArtifact, match="is a retrieval without a listed"):
        OnnxModel.load(artifact.uri, artifact.sha256)


def test_the_tower_adds_up_what_it_knows_of_a_history(tmp_path: Path) -> None:
    vectors = RNG.normal(size=(5, 4)).astype(np.float32)
    (tmp_path / "query_tower.onnx").write_bytes(mean_tower(vectors))
    tower = QueryTower.load(tmp_path, dimensions=4)

    query = tower.embed(np.array([3, -1, 0]))

    assert query == pytest.approx(vectors[3] + vectors[0], abs=1e-6)


@pytest.mark.parametrize(
    ("graph", "problem"),
    [
        (b"", "is not a graph"),
        (linear_ranker(WEIGHTS), "takes"),
        (mean_tower(np.ones((3, 5), np.float32)), r"shape \(5,\), not \(4,\)"),
        (mean_tower(np.full((3, 4), np.inf, np.float32)), "gives a query"),
    ],
)
def test_a_graph_that_is_no_tower_is_refused(tmp_path: Path, graph: bytes, problem: str) -> None:
    (tmp_path / "query_tower.onnx").write_bytes(graph)

    with pytest.raises(InvalidArtifact, match=problem):
        QueryTower.load(tmp_path, dimensions=4)
