"""An artefact is whole and unaltered, or it is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankstream.adapters.artifacts import Artifact, folder_of, read_manifest, write_artifact
from rankstream.errors import Conflict, InvalidArtifact

FIELDS: dict[str, Any] = {
    "model_id": "m1",
    "role": "ranker",
    "family": "xgboost",
    "created_ms": 1,
    "data_version": "d",
    "train_from_ms": 0,
    "train_until_ms": 1,
    "parity_max_abs": 0.0,
}


def an_artifact(root: Path) -> Artifact:
    return write_artifact(root / "ranker" / "m1", FIELDS, {"model.onnx": b"graph"})


def test_what_is_written_can_be_read_by_path_and_by_uri(tmp_path: Path) -> None:
    artifact = an_artifact(tmp_path)

    assert read_manifest(artifact.uri, artifact.sha256) == artifact.manifest
    assert read_manifest(Path(artifact.uri).as_uri(), artifact.sha256) == artifact.manifest
    assert [path.name for path in (tmp_path / "ranker").iterdir()] == ["m1"]


def test_writing_the_same_again_is_nothing_new(tmp_path: Path) -> None:
    assert an_artifact(tmp_path) == an_artifact(tmp_path)


def test_another_content_under_the_same_id_is_refused(tmp_path: Path) -> None:
    an_artifact(tmp_path)

    with pytest.raises(Conflict, match="exists with another content"):
        write_artifact(tmp_path / "ranker" / "m1", FIELDS, {"model.onnx": b"other"})

    assert (tmp_path / "ranker" / "m1" / "model.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"grap"), "the manifest says"),
        (lambda folder: (folder / "model.onnx").unlink(), "cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "has no readable manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "expected"),
    ],
)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    artifact = an_artifact(tmp_path)
    damage(Path(artifact.uri))

    with pytest.raises(InvalidArtifact, match=reason):
        read_manifest(artifact.uri, artifact.sha256)


def test_a_manifest_that_breaks_the_contract_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"model_id": ""}')

    with pytest.raises(InvalidArtifact, match="model_id"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("name", ["../escape", "a/b", "manifest.json", ""])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArtifact, match="plain file names"):
        write_artifact(tmp_path / "m", FIELDS, {name: b""})

    assert list(tmp_path.iterdir()) == []


def test_a_missing_field_leaves_nothing_behind(tmp_path: Path) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "family"}

    with pytest.raises(InvalidArtifact, match="family"):
        write_artifact(tmp_path / "m", fields, {"model.onnx": b"graph"})

    assert list(tmp_path.iterdir()) == []


def test_only_folders_are_read() -> None:
    with pytest.raises(InvalidArtifact, match="neither a path nor a file"):
        folder_of("s3://bucket/m1")
