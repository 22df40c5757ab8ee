"""Registered, aliased, written in the ledger: all of it or a named error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.promote.registry import open_registry, register
from rankstream.adapters.artifacts import Artifact, write_artifact
from rankstream.errors import DependencyUnavailable, InvalidArtifact

# MLflow's own migrations warn; they are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def an_artifact(root: Path, model_id: str) -> Artifact:
    fields: dict[str, Any] = {
        "model_id": model_id,
        "role": "ranker",
        "family": "xgboost",
        "created_ms": 1,
        "data_version": "d1",
        "train_from_ms": 0,
        "train_until_ms": 1,
        "parity_max_abs": 0.0,
        "metrics": {"auc": 0.7},
    }
    return write_artifact(root / model_id, fields, {"model.onnx": model_id.encode()})


def test_aliases_move_to_new_versions_and_the_ledger_keeps_every_move(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    first, second, third = (an_artifact(tmp_path, name) for name in ("m1", "m2", "m3"))

    register(
        uri,
        [("champion", first), ("challenger", second)],
        ledger,
        time_ms=1,
        who="ann",
        why="first",
    )
    (moved,) = register(uri, [("champion", third)], ledger, time_ms=2, who="bob", why="better")

    client = open_registry(uri)
    assert (moved.version, moved.model_id, moved.sha256) == ("3", "m3", third.sha256)
    assert client.get_model_version_by_alias("ranker", "champion").tags["model_id"] == "m3"
    assert client.get_model_version_by_alias("ranker", "challenger").tags["model_id"] == "m2"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [(line["alias"], line["model_id"], line["who"], line["why"]) for line in lines] == [
        ("champion", "m1", "ann", "first"),
        ("challenger", "m2", "ann", "first"),
        ("champion", "m3", "bob", "better"),
    ]


def test_an_altered_artefact_is_not_registered(tmp_path: Path) -> None:
    uri, ledger = f"sqlite:///{tmp_path}/registry.db", tmp_path / "ledger.jsonl"
    good, bad = an_artifact(tmp_path, "m1"), an_artifact(tmp_path, "m2")
    (Path(bad.uri) / "model.onnx").write_bytes(b"half")

    with pytest.raises(InvalidArtifact, match="the manifest says"):
        register(
            uri, [("champion", good), ("challenger", bad)], ledger, time_ms=1, who="ann", why="x"
        )

    assert open_registry(uri).search_registered_models() == []
    assert not ledger.exists()


def test_a_registry_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    artifact = an_artifact(tmp_path, "m1")
    (tmp_path / "registry.db").write_bytes(b"no database, but long enough to be one" * 100)

    with pytest.raises(DependencyUnavailable, match=r"model registry sqlite:///.*not a database"):
        register(
            f"sqlite:///{tmp_path}/registry.db",
            [("champion", artifact)],
            tmp_path / "ledger.jsonl",
            time_ms=1,
            who="ann",
            why="x",
        )
